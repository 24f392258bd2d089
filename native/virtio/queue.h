// A split virtqueue from the device's side (virtio 1.2 §2.7): descriptor table, available ring, used ring; indirect descriptors and
// event idx. Everything in the rings is written by the guest and believed only after a check.
#pragma once
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "virtio/guest_memory.h"

namespace tskata::virtio {

constexpr uint64_t feature_indirect_desc = 1ull << 28;
constexpr uint64_t feature_event_idx = 1ull << 29;
constexpr uint64_t feature_version_1 = 1ull << 32;

// The guest broke the protocol. Policy: the device stops serving that queue and says so (virtio/complaints.h); a guest cannot make it crash, spin or
// fill a log.
class QueueFault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One buffer of the guest: what the device may read, then what it may write, as pieces of guest memory.
struct Chain {
  uint16_t head = 0;
  std::vector<iovec> readable;
  std::vector<iovec> writable;
  size_t readable_bytes = 0;
  size_t writable_bytes = 0;
};

// A buffer given back, as the used ring holds it (§2.7.8).
struct Used {
  uint32_t head;
  uint32_t written;
};

struct QueueLayout {
  uint16_t size = 0;
  uint64_t descriptors = 0;  // guest-physical addresses
  uint64_t available = 0;
  uint64_t used = 0;
};

// Thread-safe: pop and push take the queue's lock, so that several workers may serve one queue.
class Queue {
 public:
  // Throws QueueFault when the rings are not inside guest memory or the size is not a power of two (§2.7).
  Queue(std::shared_ptr<const GuestMemory> memory, const QueueLayout& layout, uint64_t features, uint16_t next_available);

  // Takes the next buffer into `chain` (whose vectors are reused); false when there is none.
  bool pop(Chain& chain);

  // Puts a popped buffer back as if it had not been popped; only the last one popped, by the only popper.
  void unpop();

  // Returns a buffer with `written` bytes of its writable part filled. True when the driver wants an interrupt (§2.7.7).
  bool push(uint16_t head, uint32_t written);
  // Several buffers that the driver must see at once, as those of one packet (§5.1.6.3.2): the index moves after the last is written.
  bool push(std::span<const Used> used);

  // Asks for a notification on the next buffer, then says whether one is there already: the caller pops again if so, which
  // closes the race of §2.7.13.3.1 with a driver that adds just before.
  bool enable_notifications();
  void disable_notifications();
  // Whether there is a buffer to pop. Takes no lock, so that who looks for one keeps nobody from it.
  bool has_next() const;

  // The memory that the queue's addresses are in: for devices whose requests name further addresses.
  const GuestMemory& memory() const { return *memory_; }

  // Index of the next buffer to pop: what a transport saves when the queue stops.
  uint16_t next_available() const;

 private:
  struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
  };
  // §2.7.5.3.1 says the queue's size; Linux drivers use indirect tables beyond it.
  size_t max_pieces() const { return size_t{size_} + 1024; }
  Descriptor read_descriptor(std::span<const std::byte> table, uint16_t index) const;
  void add_piece(Chain& chain, const Descriptor& descriptor) const;
  void walk(Chain& chain, uint16_t head) const;
  void walk_indirect(Chain& chain, const Descriptor& table) const;
  std::atomic_ref<uint16_t> available_index() const;
  std::atomic_ref<uint16_t> field(std::span<std::byte> ring, size_t offset) const;

  std::shared_ptr<const GuestMemory> memory_;
  uint16_t size_;
  bool indirect_;
  bool event_idx_;
  std::span<std::byte> descriptors_;
  std::span<std::byte> available_;
  std::span<std::byte> used_;
  mutable std::mutex mutex_;
  std::atomic<uint16_t> next_available_;  // changed inside the lock
  uint16_t next_used_ = 0;
  uint16_t signalled_used_ = 0;  // used index at the last interrupt decision
  bool signalled_valid_ = false;
};

}  // namespace tskata::virtio
