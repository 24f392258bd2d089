// A descriptor by its name in /proc: how an O_PATH descriptor is opened, and how calls that take a path reach what it refers to.
#pragma once
#include <string>

namespace tskata::os {

inline std::string proc_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace tskata::os
