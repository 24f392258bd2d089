// Registers of virtio-mmio (virtio 1.2 §4.2.2) and the status machine behind them (§2.1, §3.1).
#include "transport/virtio_mmio.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "virtio/complaints.h"

namespace tskata::transport {

namespace {

namespace reg {
enum Register : uint64_t {
  magic_value = 0x000,
  version = 0x004,
  device_id = 0x008,
  vendor_id = 0x00c,
  device_features = 0x010,
  device_features_select = 0x014,
  driver_features = 0x020,
  driver_features_select = 0x024,
  queue_select = 0x030,
  queue_size_max = 0x034,
  queue_size = 0x038,
  queue_ready = 0x044,
  interrupt_status = 0x060,
  interrupt_acknowledge = 0x064,
  status = 0x070,
  queue_descriptors_low = 0x080,
  queue_descriptors_high = 0x084,
  queue_driver_low = 0x090,
  queue_driver_high = 0x094,
  queue_device_low = 0x0a0,
  queue_device_high = 0x0a4,
  shared_memory_length_low = 0x0b0,
  shared_memory_length_high = 0x0b4,
  shared_memory_base_low = 0x0b8,
  shared_memory_base_high = 0x0bc,
  configuration_generation = 0x0fc,
  configuration = 0x100,
};
}  // namespace reg

constexpr uint32_t status_acknowledge = 1;
constexpr uint32_t status_driver = 2;
constexpr uint32_t status_driver_ok = 4;
constexpr uint32_t status_features_ok = 8;
constexpr uint32_t status_needs_reset = 64;
constexpr uint32_t status_failed = 128;
constexpr uint32_t interrupt_used_buffer = 1;
constexpr uint32_t interrupt_configuration = 2;

void set_low(uint64_t& address, uint32_t value) { address = (address & ~uint64_t{0xffff'ffff}) | value; }
void set_high(uint64_t& address, uint32_t value) { address = (address & 0xffff'ffff) | (uint64_t{value} << 32); }

}  // namespace

// §4.2.2: the bit, then the line. A bit that is set already has been raised and not been acknowledged: drivers acknowledge before they
// look at their rings, so whoever set it finds the new buffer, too.
void VirtioMmio::Interrupts::signal(uint32_t cause) {
  const std::lock_guard lock(mutex);
  if (cause == interrupt_configuration) ++generation;
  if ((status & cause) != 0) return;
  status |= cause;
  if (live) raise();
}

// A driver that is still probing has no handler: an interrupt then would be lost, and, since its bit stands unacknowledged, all that
// follow it. What came too early is told now.
void VirtioMmio::Interrupts::go_live() {
  const std::lock_guard lock(mutex);
  live = true;
  if (status != 0) raise();
}

void VirtioMmio::Interrupts::clear() {
  const std::lock_guard lock(mutex);
  live = false;
  status = 0;
}

VirtioMmio::VirtioMmio(std::shared_ptr<const virtio::GuestMemory> memory, std::function<void()> raise, Run start)
    : memory_(std::move(memory)), start_(std::move(start)) {
  interrupts_->raise = std::move(raise);
}

VirtioMmio::~VirtioMmio() {
  {
    // The device may outlive the slot; what it signals then goes nowhere.
    const std::lock_guard lock(interrupts_->mutex);
    interrupts_->raise = [] {};
  }
  const std::lock_guard lock(mutex_);
  reset();
}

void VirtioMmio::attach(std::shared_ptr<virtio::Device> device, const Listen& listen) {
  const std::lock_guard lock(mutex_);
  if (device_ != nullptr) throw std::logic_error("the slot has a device");
  std::vector<Ring> rings(device->queue_count());
  for (Ring& ring : rings) ring.kick.reset(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  if (listen) listen(notifiers_of(rings));
  // Nothing fails from here on.
  rings_ = std::move(rings);
  device->on_config_change([interrupts = interrupts_] { interrupts->signal(interrupt_configuration); });
  device_ = std::move(device);
}

std::vector<int> VirtioMmio::notifiers() const {
  const std::lock_guard lock(mutex_);
  return notifiers_of(rings_);
}

std::vector<int> VirtioMmio::notifiers_of(const std::vector<Ring>& rings) {
  std::vector<int> out;
  for (const Ring& ring : rings) out.push_back(ring.kick.get());
  return out;
}

void VirtioMmio::read(uint64_t offset, std::span<std::byte> out) {
  const std::lock_guard lock(mutex_);
  std::ranges::fill(out, std::byte{0});
  if (offset >= reg::configuration) {
    if (device_ != nullptr) device_->read_config(offset - reg::configuration, out);
    return;
  }
  // §4.2.2.2: registers are read and written by 32 bits, aligned. Anything else reads zero.
  if (out.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) return;
  const uint32_t value = read_register(offset);
  std::memcpy(out.data(), &value, sizeof value);
}

uint32_t VirtioMmio::read_register(uint64_t offset) {
  switch (offset) {
    case reg::magic_value: return 0x7472'6976;  // "virt"
    case reg::version: return 2;
    case reg::device_id: return device_ == nullptr ? 0 : device_->device_id();
    case reg::vendor_id: return 0x4b54'5354;  // "TSTK"
    case reg::device_features: return device_features();
    case reg::queue_size_max: return selected() == nullptr ? 0 : device_->max_queue_size();
    case reg::queue_ready: return selected() != nullptr && selected()->ready ? 1 : 0;
    case reg::interrupt_status: {
      const std::lock_guard lock(interrupts_->mutex);
      return interrupts_->status;
    }
    case reg::configuration_generation: {
      const std::lock_guard lock(interrupts_->mutex);
      return interrupts_->generation;
    }
    case reg::status: return status_;
    // §4.2.2.1: a length of all ones says that there is no such region.
    case reg::shared_memory_length_low:
    case reg::shared_memory_length_high:
    case reg::shared_memory_base_low:
    case reg::shared_memory_base_high: return ~0u;
    default: return 0;
  }
}

uint32_t VirtioMmio::device_features() const {
  if (device_ == nullptr || device_features_select_ > 1) return 0;
  const uint64_t offered = device_->features() | virtio::feature_version_1;
  return static_cast<uint32_t>(offered >> (32 * device_features_select_));
}

void VirtioMmio::write(uint64_t offset, std::span<const std::byte> in) {
  const std::lock_guard lock(mutex_);
  if (device_ == nullptr) return;
  if (offset >= reg::configuration) {
    // §3.1.1: configuration is read, not written, before the features are settled. There is no device to speak of after FAILED.
    if ((status_ & (status_features_ok | status_failed)) != status_features_ok) return;
    attempt("configuration", [&] { device_->write_config(offset - reg::configuration, in); });
    return;
  }
  if (in.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) return;
  uint32_t value;
  std::memcpy(&value, in.data(), sizeof value);
  write_register(offset, value);
}

void VirtioMmio::write_register(uint64_t offset, uint32_t value) {
  switch (offset) {
    case reg::device_features_select: device_features_select_ = value; return;
    case reg::driver_features_select: driver_features_select_ = value; return;
    case reg::driver_features:
      // §3.1.1: what is accepted stands once FEATURES_OK does.
      if ((status_ & status_features_ok) != 0 || driver_features_select_ > 1) return;
      if (driver_features_select_ == 0) set_low(driver_features_, value);
      else set_high(driver_features_, value);
      return;
    case reg::queue_select: queue_select_ = value; return;
    case notify_register: return notify(value);
    case reg::interrupt_acknowledge: {
      const std::lock_guard lock(interrupts_->mutex);
      interrupts_->status &= ~value;
      return;
    }
    case reg::status: return write_status(value);
    default: return write_queue_register(offset, value);
  }
}

VirtioMmio::Ring* VirtioMmio::selected() { return queue_select_ < rings_.size() ? &rings_[queue_select_] : nullptr; }

// §4.2.3.2: a queue is set up after the features and before DRIVER_OK, and not while it is ready.
void VirtioMmio::write_queue_register(uint64_t offset, uint32_t value) {
  Ring* const ring = selected();
  if (ring == nullptr || (status_ & status_features_ok) == 0) return;
  if (offset == reg::queue_ready) {
    if (value <= 1) write_queue_ready(queue_select_, value == 1);
    return;
  }
  if (ring->ready || (status_ & status_driver_ok) != 0) return;
  switch (offset) {
    // A size beyond the largest is none, which start_rings refuses.
    case reg::queue_size: ring->layout.size = value <= device_->max_queue_size() ? static_cast<uint16_t>(value) : 0; return;
    case reg::queue_descriptors_low: return set_low(ring->layout.descriptors, value);
    case reg::queue_descriptors_high: return set_high(ring->layout.descriptors, value);
    case reg::queue_driver_low: return set_low(ring->layout.available, value);
    case reg::queue_driver_high: return set_high(ring->layout.available, value);
    case reg::queue_device_low: return set_low(ring->layout.used, value);
    case reg::queue_device_high: return set_high(ring->layout.used, value);
    default: return;
  }
}

// §4.2.2: zero stops a queue at any time; when the register reads zero, its memory is the driver's again. A queue starts with
// DRIVER_OK and not after it (that would be VIRTIO_F_RING_RESET, which is not offered).
void VirtioMmio::write_queue_ready(size_t index, bool ready) {
  if (ready && (status_ & status_driver_ok) != 0) return;
  rings_[index].ready = ready;
  if (!ready) stop_ring(index);
}

// Where no ioeventfd stands (unit tests, a write of another width): the same descriptor.
void VirtioMmio::notify(uint32_t index) {
  if (index >= rings_.size()) return;
  const uint64_t one = 1;
  (void)!::write(rings_[index].kick.get(), &one, sizeof one);
}

// §3.1.1, steps 5 and 6: FEATURES_OK stands only if the device can work with what the driver takes. A driver of the legacy interface
// (no VERSION_1) is none of ours (§6.1).
bool VirtioMmio::accept_features() {
  const uint64_t offered = device_->features() | virtio::feature_version_1;
  if ((driver_features_ & ~offered) != 0 || (driver_features_ & virtio::feature_version_1) == 0) return false;
  return attempt("features", [&] { device_->set_features(driver_features_); });
}

// §2.1.1: bits are only ever added; a write of zero resets, which is all that helps once the driver has said FAILED.
void VirtioMmio::write_status(uint32_t value) {
  if (value == 0) return reset();
  if ((status_ & status_failed) != 0) return;
  const uint32_t added = value & ~status_ & (status_acknowledge | status_driver | status_driver_ok | status_features_ok | status_failed);
  status_ |= added & (status_acknowledge | status_driver | status_failed);
  if ((added & status_failed) != 0) return stop_rings();
  if ((added & status_features_ok) != 0 && (status_ & status_driver) != 0 && accept_features()) status_ |= status_features_ok;
  if ((added & status_driver_ok) != 0 && (status_ & status_features_ok) != 0) {
    status_ |= status_driver_ok;
    start_rings();
    interrupts_->go_live();
  }
}

// All that the driver has made ready, or none.
void VirtioMmio::start_rings() {
  const bool started = attempt("queues", [this] {
    start_([this] {
      for (size_t index = 0; index < rings_.size(); ++index) {
        if (rings_[index].ready) start_ring(index);
      }
    });
  });
  if (started) return;
  stop_rings();
  status_ |= status_needs_reset;
  interrupts_->signal(interrupt_configuration);  // §2.1.2
}

void VirtioMmio::start_ring(size_t index) {
  Ring& ring = rings_[index];
  ring.queue = std::make_shared<virtio::Queue>(memory_, ring.layout, driver_features_, 0);
  ring.running = true;  // first: a start that fails halfway is stopped like any other
  device_->start_queue(index, {ring.queue, ring.kick.get(), [interrupts = interrupts_] { interrupts->signal(interrupt_used_buffer); }});
}

void VirtioMmio::stop_ring(size_t index) {
  Ring& ring = rings_[index];
  if (std::exchange(ring.running, false)) attempt("stop", [&] { device_->stop_queue(index); });
  ring.queue.reset();
  uint64_t pending;
  (void)!::read(ring.kick.get(), &pending, sizeof pending);  // a notification of before
}

void VirtioMmio::stop_rings() {
  for (size_t index = 0; index < rings_.size(); ++index) stop_ring(index);
}

void VirtioMmio::reset() {
  stop_rings();
  for (Ring& ring : rings_) {
    ring.ready = false;
    ring.layout = {};
  }
  // Also of a device that never got as far as a queue: it may have been told features and configuration.
  if (device_ != nullptr && status_ != 0) attempt("reset", [this] { device_->reset(); });
  status_ = 0;
  driver_features_ = 0;
  device_features_select_ = 0;
  driver_features_select_ = 0;
  queue_select_ = 0;
  interrupts_->clear();
}

// Calls the device; false when it threw.
template <typename Call>
bool VirtioMmio::attempt(const char* what, Call&& call) {
  try {
    call();
    return true;
  } catch (const std::exception& error) {
    virtio::complain("virtio-mmio, device " + std::to_string(device_->device_id()) + ": " + what + ": " + error.what());
    return false;
  }
}

}  // namespace tskata::transport
