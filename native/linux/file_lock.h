// Advisory whole-file locks that the kernel lets go of when their holder dies.
#pragma once
#include <optional>
#include <string>

namespace tskata::linux_calls {

// flock(2) LOCK_EX on `path`, a file or a folder that is there. The descriptor is the lock: closing it, or dying, frees it.
// Empty when someone else holds it. Throws std::system_error when the file can't be opened or locked.
std::optional<int> try_lock_file(const std::string& path);

}  // namespace tskata::linux_calls
