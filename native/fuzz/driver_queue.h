// A split virtqueue from the driver's side (virtio 1.2 §2.7), for fuzzers and device tests: says what a guest's driver says, and
// lets a test say anything else by hand.
#pragma once
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "virtio/queue.h"

namespace tskata::testing {

constexpr uint16_t flag_next = 1;
constexpr uint16_t flag_write = 2;
constexpr uint16_t flag_indirect = 4;

struct RingDescriptor {
  uint64_t address = 0;
  uint32_t length = 0;
  uint16_t flags = 0;
  uint16_t next = 0;
};
static_assert(sizeof(RingDescriptor) == 16);

struct Used {
  uint32_t head;
  uint32_t length;
};

class DriverQueue {
 public:
  // Bytes the three rings take, in one piece aligned for all of them.
  static constexpr size_t bytes(uint16_t size) { return 16u * size + aligned(6u + 2u * size) + aligned(6u + 8u * size); }

  // `rings` is zeroed guest memory at `address`, 16-aligned.
  DriverQueue(std::span<std::byte> rings, uint64_t address, uint16_t size) : rings_(rings), size_(size) {
    layout_ = {size, address, address + 16u * size, address + 16u * size + aligned(6u + 2u * size)};
    for (uint16_t i = size; i > 0; --i) free_.push_back(static_cast<uint16_t>(i - 1));
  }

  const virtio::QueueLayout& layout() const { return layout_; }
  size_t room() const { return free_.size(); }

  // Adds one buffer of these pieces (flags: flag_write or nothing; the chain's own flags are set here) and publishes it.
  uint16_t add(std::span<const RingDescriptor> pieces) {
    std::vector<uint16_t> taken;
    for (size_t i = 0; i < pieces.size(); ++i) {
      taken.push_back(free_.back());
      free_.pop_back();
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      RingDescriptor descriptor = pieces[i];
      if (i + 1 < pieces.size()) {
        descriptor.flags |= flag_next;
        descriptor.next = taken[i + 1];
      }
      set_descriptor(taken[i], descriptor);
    }
    const uint16_t head = taken.front();
    chains_[head] = std::move(taken);
    publish(head);
    return head;
  }

  // By hand: any descriptor, any head, any index.
  void set_descriptor(uint16_t index, const RingDescriptor& descriptor) { std::memcpy(rings_.data() + 16u * index, &descriptor, sizeof descriptor); }
  void publish(uint16_t head) {
    std::memcpy(available() + 4 + 2u * (next_ & (size_ - 1)), &head, sizeof head);
    set_available_index(static_cast<uint16_t>(next_ + 1));
  }
  void set_available_index(uint16_t index) {
    next_ = index;
    std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(available() + 2)).store(index, std::memory_order_release);
  }
  // §2.7.10: interrupt when the device's index passes this.
  void set_used_event(uint16_t index) { std::memcpy(available() + 4 + 2u * size_, &index, sizeof index); }

  uint16_t available_index() const { return next_; }
  // Whether the device wants to be told of what has been published since the index was `before`; event index (§2.7.10) or flag (§2.7.9).
  bool wants_notification(uint16_t before, bool event_idx) const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const auto field = [this](size_t offset) { return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(used() + offset)).load(); };
    if (!event_idx) return (field(0) & 1) == 0;
    return static_cast<uint16_t>(next_ - field(4 + 8u * size_) - 1) < static_cast<uint16_t>(next_ - before);
  }

  uint16_t used_index() const { return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(used() + 2)).load(std::memory_order_acquire); }

  // The next buffer that the device has returned.
  std::optional<Used> take() {
    if (used_index() == seen_) return std::nullopt;
    Used element;
    std::memcpy(&element, used() + 4 + 8u * (seen_ & (size_ - 1)), sizeof element);
    ++seen_;
    const auto found = chains_.find(static_cast<uint16_t>(element.head));
    if (found != chains_.end()) {
      free_.insert(free_.end(), found->second.begin(), found->second.end());
      chains_.erase(found);
    }
    return element;
  }

 private:
  static constexpr size_t aligned(size_t size) { return (size + 15) & ~size_t{15}; }
  std::byte* available() const { return rings_.data() + (layout_.available - layout_.descriptors); }
  std::byte* used() const { return rings_.data() + (layout_.used - layout_.descriptors); }

  std::span<std::byte> rings_;
  uint16_t size_;
  virtio::QueueLayout layout_;
  std::vector<uint16_t> free_;
  std::map<uint16_t, std::vector<uint16_t>> chains_;
  uint16_t next_ = 0;
  uint16_t seen_ = 0;
};

}  // namespace tskata::testing
