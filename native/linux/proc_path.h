// A descriptor by its name in /proc: how an O_PATH descriptor is opened, and how calls that take a path reach what it refers to.
#pragma once
#include <fcntl.h>

#include <string>

#include "linux/descriptor.h"

namespace tskata::os {

inline std::string proc_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

// The folder of this process's descriptors, held open: for calls that take a folder and a name, which spares them the walk from the root.
class OwnDescriptors {
 public:
  OwnDescriptors() : folder_(checked(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC), "open /proc/self/fd")) {}

  int folder() const { return folder_.get(); }
  static std::string name(int fd) { return std::to_string(fd); }

  // Opens anew what `fd` refers to.
  Descriptor open(int fd, int flags) const { return Descriptor(checked(::openat(folder(), name(fd).c_str(), flags | O_CLOEXEC), "openat")); }

 private:
  Descriptor folder_;
};

}  // namespace tskata::os
