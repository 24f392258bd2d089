// Checked translation of guest-physical ranges.
#include "virtio/guest_memory.h"

#include <algorithm>
#include <stdexcept>

namespace tskata::virtio {

GuestMemory::GuestMemory(std::vector<MemoryRegion> regions) : regions_(std::move(regions)) {
  std::ranges::sort(regions_, {}, &MemoryRegion::guest_address);
  uint64_t end = 0;
  for (const MemoryRegion& region : regions_) {
    if (region.host.empty()) throw std::invalid_argument("memory region of no bytes");
    if (region.guest_address < end) throw std::invalid_argument("memory regions overlap");
    if (region.guest_address + region.host.size() < region.guest_address) {
      throw std::invalid_argument("memory region wraps the address space");
    }
    end = region.guest_address + region.host.size();
  }
}

std::optional<std::span<std::byte>> GuestMemory::slice(uint64_t guest_address, uint64_t length) const {
  for (const MemoryRegion& region : regions_) {
    if (guest_address < region.guest_address) return std::nullopt;  // sorted: no later region can hold it
    const uint64_t offset = guest_address - region.guest_address;
    if (offset >= region.host.size()) continue;
    if (length > region.host.size() - offset) return std::nullopt;
    return region.host.subspan(offset, length);
  }
  return std::nullopt;
}

}  // namespace tskata::virtio
