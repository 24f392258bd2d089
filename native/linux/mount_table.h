// The mount points of a mount namespace, as /proc tells them.
#pragma once
#include <string>
#include <vector>

namespace tskata::os {

// Mount points at or below `path` of the process or thread whose folder of /proc `proc` is, in the table's order: a mount over another of the
// same point comes later.
std::vector<std::string> mount_points(int proc, const std::string& path);

}  // namespace tskata::os
