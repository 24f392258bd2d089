// The console of a guest whose hypervisor is a process of its own: what comes through a pipe goes to the bounded file.
#pragma once
#include <functional>

#include "linux/descriptor.h"

namespace tskata::devices::console {

// Reads on a thread of its own until the last writer has gone, then calls `ended` there. A disk that is slow holds up the writer, which
// is for the hypervisor to bear.
void log_pipe(os::Descriptor source, os::Descriptor file, std::function<void()> ended);

}  // namespace tskata::devices::console
