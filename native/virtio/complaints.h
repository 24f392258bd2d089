// Lines on standard error about what a guest did wrong. A guest can do it again as fast as it can reset a device, so a process, which
// serves one pod, writes so many and no more.
#pragma once
#include <string>

namespace tskata::virtio {

constexpr unsigned max_complaints = 100;

// From any thread. The last one says that it is the last.
void complain(const std::string& line);

}  // namespace tskata::virtio
