// Memory of a machine: mappings of this process that KVM shows to the guest, with one lifetime for all who hold them.
#pragma once
#include <memory>
#include <vector>

#include "linux/descriptor.h"
#include "virtio/guest_memory.h"

namespace tskata::kvm {

class Mapping {
 public:
  // Private anonymous memory, not backed until it is touched.
  explicit Mapping(size_t bytes);
  // A private view of a whole file, followed by zeros up to `bytes`. The file must not shrink: its missing pages would be SIGBUS.
  Mapping(int fd, size_t bytes);
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

// What devices hold: the checked view, and the mappings it stands on.
struct MachineMemory {
  std::vector<Mapping> mappings;
  std::unique_ptr<virtio::GuestMemory> view;
};

}  // namespace tskata::kvm
