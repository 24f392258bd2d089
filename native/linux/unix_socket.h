// Unix sockets by path: listening and connecting where the path may be longer than sun_path (by way of its folder's descriptor).
#pragma once
#include <string>

#include "linux/descriptor.h"

namespace tskata::os {

// Binds (replacing a stale socket file) and listens; close-on-exec, non-blocking, mode 0600.
Descriptor listen_unix(const std::string& path, int type, int backlog);

// Connects, blocking; close-on-exec.
Descriptor connect_unix(const std::string& path, int type);

}  // namespace tskata::os
