// cgroup v2's device control: a BPF program on the cgroup.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace tskata::os {

// Loads the instructions and makes them the cgroup's only device program.
void set_device_filter(const std::string& cgroup, std::span<const std::byte> instructions);

}  // namespace tskata::os
