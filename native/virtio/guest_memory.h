// Guest memory as a device sees it: regions of guest-physical addresses mapped into this process, and the one checked way to reach them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace tskata::virtio {

struct MemoryRegion {
  uint64_t guest_address;
  std::span<std::byte> host;
};

// Immutable once built: devices hold it by shared_ptr and a new memory table makes a new object. The mappings belong to the transport.
class GuestMemory {
 public:
  explicit GuestMemory(std::vector<MemoryRegion> regions);

  // The bytes at [guest_address, guest_address + length), or nothing when they are not wholly inside one region.
  // Every guest address passes through here; a guest that names memory it does not have gets a QueueFault from the caller.
  std::optional<std::span<std::byte>> slice(uint64_t guest_address, uint64_t length) const;

 private:
  std::vector<MemoryRegion> regions_;  // sorted by guest_address, not overlapping
};

}  // namespace tskata::virtio
