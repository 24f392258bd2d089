// The device's side of a split virtqueue.
#include "virtio/queue.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace tskata::virtio {

namespace {

constexpr uint16_t desc_next = 1;      // §2.7.5 VIRTQ_DESC_F_NEXT
constexpr uint16_t desc_write = 2;     // VIRTQ_DESC_F_WRITE
constexpr uint16_t desc_indirect = 4;  // VIRTQ_DESC_F_INDIRECT
constexpr uint16_t avail_no_interrupt = 1;
constexpr uint16_t used_no_notify = 1;
constexpr size_t descriptor_bytes = 16;
constexpr size_t ring_header_bytes = 4;  // flags, idx
constexpr size_t used_element_bytes = sizeof(Used);
static_assert(used_element_bytes == 8);

std::span<std::byte> ring(const GuestMemory& memory, uint64_t address, uint64_t bytes, uint64_t alignment, const char* name) {
  if (address % alignment != 0) throw QueueFault(std::string(name) + " is not aligned");
  const auto found = memory.slice(address, bytes);
  if (!found) throw QueueFault(std::string(name) + " is not in guest memory");
  // A transport may map a region anywhere; the atomic accesses below need the alignment in this process.
  if (reinterpret_cast<uintptr_t>(found->data()) % alignment != 0) throw QueueFault(std::string(name) + " is in misaligned memory");
  return *found;
}

}  // namespace

Queue::Queue(std::shared_ptr<const GuestMemory> memory, const QueueLayout& layout, uint64_t features, uint16_t next_available)
    : memory_(std::move(memory)),
      size_(layout.size),
      indirect_((features & feature_indirect_desc) != 0),
      event_idx_((features & feature_event_idx) != 0),
      next_available_(next_available) {
  if (!std::has_single_bit(size_) || size_ > 32768) throw QueueFault("queue size is not a power of two up to 32768");
  // §2.7: alignments 16, 2, 4; each ring has two bytes more for the event index.
  descriptors_ = ring(*memory_, layout.descriptors, descriptor_bytes * size_, 16, "descriptor table");
  available_ = ring(*memory_, layout.available, ring_header_bytes + 2 * size_ + 2, 2, "available ring");
  used_ = ring(*memory_, layout.used, ring_header_bytes + used_element_bytes * size_ + 2, 4, "used ring");
  next_used_ = field(used_, 2).load(std::memory_order_relaxed);
}

std::atomic_ref<uint16_t> Queue::field(std::span<std::byte> ring, size_t offset) const {
  return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(ring.data() + offset));
}

std::atomic_ref<uint16_t> Queue::available_index() const { return field(available_, 2); }

Queue::Descriptor Queue::read_descriptor(std::span<const std::byte> table, uint16_t index) const {
  Descriptor descriptor;
  // Copied once: the guest may change it under us, and a check of one value followed by a use of another is no check.
  std::memcpy(&descriptor, table.data() + size_t{index} * descriptor_bytes, sizeof descriptor);
  return descriptor;
}

void Queue::add_piece(Chain& chain, const Descriptor& descriptor) const {
  const auto bytes = memory_->slice(descriptor.address, descriptor.length);
  if (!bytes) throw QueueFault("descriptor outside guest memory");
  if (chain.readable.size() + chain.writable.size() >= max_pieces()) throw QueueFault("descriptor chain too long");
  if ((descriptor.flags & desc_write) != 0) {
    if (!bytes->empty()) chain.writable.push_back({bytes->data(), bytes->size()});
    chain.writable_bytes += bytes->size();
    return;
  }
  // §2.7.4.2: the device-readable part comes first.
  if (!chain.writable.empty()) throw QueueFault("readable descriptor after a writable one");
  if (!bytes->empty()) chain.readable.push_back({bytes->data(), bytes->size()});
  chain.readable_bytes += bytes->size();
}

void Queue::walk_indirect(Chain& chain, const Descriptor& indirect) const {
  if (!indirect_) throw QueueFault("indirect descriptor without the feature");
  if ((indirect.flags & desc_next) != 0) throw QueueFault("indirect descriptor with a next");  // §2.7.5.3.1
  if (indirect.length == 0 || indirect.length % descriptor_bytes != 0) throw QueueFault("indirect table of a broken length");
  const auto table = memory_->slice(indirect.address, indirect.length);
  if (!table) throw QueueFault("indirect table outside guest memory");
  const size_t count = indirect.length / descriptor_bytes;
  uint32_t index = 0;
  // Bounded by more than the table: descriptors of no bytes add no pieces, and a table may be as large as guest memory.
  for (size_t steps = 0; steps < std::min(count, max_pieces()); ++steps) {
    if (index >= count || index > UINT16_MAX) throw QueueFault("indirect descriptor index out of range");
    const Descriptor descriptor = read_descriptor(*table, static_cast<uint16_t>(index));
    if ((descriptor.flags & desc_indirect) != 0) throw QueueFault("indirect descriptor inside an indirect table");
    add_piece(chain, descriptor);
    if ((descriptor.flags & desc_next) == 0) return;
    index = descriptor.next;
  }
  throw QueueFault("indirect table loops or is too long");
}

void Queue::walk(Chain& chain, uint16_t head) const {
  uint16_t index = head;
  for (uint32_t steps = 0; steps < size_; ++steps) {
    if (index >= size_) throw QueueFault("descriptor index out of range");
    const Descriptor descriptor = read_descriptor(descriptors_, index);
    if ((descriptor.flags & desc_indirect) != 0) return walk_indirect(chain, descriptor);
    add_piece(chain, descriptor);
    if ((descriptor.flags & desc_next) == 0) return;
    index = descriptor.next;
  }
  throw QueueFault("descriptor chain loops");
}

bool Queue::pop(Chain& chain) {
  const std::lock_guard lock(mutex_);
  // Acquire: pairs with the driver's write barrier between filling the ring and moving idx (§2.7.13.3), so that what the index
  // announces is what we read.
  const uint16_t available = available_index().load(std::memory_order_acquire);
  const uint16_t pending = static_cast<uint16_t>(available - next_available_);
  if (pending == 0) return false;
  if (pending > size_) throw QueueFault("available index runs ahead of the ring");
  const size_t slot = next_available_ & (size_ - 1);
  const uint16_t head = field(available_, ring_header_bytes + 2 * slot).load(std::memory_order_relaxed);
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_bytes = 0;
  chain.writable_bytes = 0;
  walk(chain, head);
  ++next_available_;
  return true;
}

void Queue::unpop() {
  const std::lock_guard lock(mutex_);
  --next_available_;
}

bool Queue::push(uint16_t head, uint32_t written) {
  const Used one{head, written};
  return push(std::span(&one, 1));
}

bool Queue::push(std::span<const Used> used) {
  const std::lock_guard lock(mutex_);
  for (const Used& element : used) {
    const size_t slot = next_used_ & (size_ - 1);
    std::memcpy(used_.data() + ring_header_bytes + used_element_bytes * slot, &element, sizeof element);
    ++next_used_;
  }
  // Release: the driver must see the elements and the buffer's bytes before the index that announces them (§2.7.14).
  field(used_, 2).store(next_used_, std::memory_order_release);
  // Full fence: our store of idx must be visible before we read the driver's wish for interrupts, else both sides may wait (§2.7.7.2).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!event_idx_) return (field(available_, 0).load(std::memory_order_relaxed) & avail_no_interrupt) == 0;
  // §2.7.7.2: interrupt when idx has passed used_event since the last decision.
  const uint16_t used_event = field(available_, ring_header_bytes + 2 * size_).load(std::memory_order_relaxed);
  const uint16_t before = signalled_used_;
  const bool first = !signalled_valid_;
  signalled_used_ = next_used_;
  signalled_valid_ = true;
  return first || static_cast<uint16_t>(next_used_ - used_event - 1) < static_cast<uint16_t>(next_used_ - before);
}

bool Queue::enable_notifications() {
  const std::lock_guard lock(mutex_);
  if (event_idx_) {
    field(used_, ring_header_bytes + used_element_bytes * size_).store(next_available_, std::memory_order_relaxed);
  } else {
    field(used_, 0).store(0, std::memory_order_relaxed);
  }
  // Full fence: the wish must be visible before the index is read again (§2.7.13.3.1 from the device's side).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return available_index().load(std::memory_order_acquire) != next_available_;
}

void Queue::disable_notifications() {
  const std::lock_guard lock(mutex_);
  if (event_idx_) {
    // An index that the driver has passed already (§2.7.10).
    const auto passed = static_cast<uint16_t>(next_available_ - 1);
    field(used_, ring_header_bytes + used_element_bytes * size_).store(passed, std::memory_order_relaxed);
  } else {
    field(used_, 0).store(used_no_notify, std::memory_order_relaxed);
  }
}

bool Queue::has_next() const { return available_index().load(std::memory_order_relaxed) != next_available_.load(std::memory_order_relaxed); }

uint16_t Queue::next_available() const {
  const std::lock_guard lock(mutex_);
  return next_available_;
}

}  // namespace tskata::virtio
