// What a device backend is to the transport that attaches it. A device knows memory and queues, never its transport.
#pragma once
#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "virtio/queue.h"

namespace tskata::virtio {

// A queue that the driver has set up: the rings, the descriptor that becomes readable when the driver notifies, and how to interrupt.
struct ActiveQueue {
  std::shared_ptr<Queue> queue;  // none: the driver left this queue unused
  int kick = -1;                 // eventfd, owned by the transport for as long as the device is active
  std::function<void()> interrupt;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual uint32_t device_id() const = 0;  // virtio 1.2 §5
  virtual uint64_t features() const = 0;   // device-specific bits and those of queues it supports
  virtual size_t queue_count() const = 0;
  virtual uint16_t max_queue_size() const = 0;
  // Copies configuration space from `offset`; bytes beyond its end read as zero.
  virtual void read_config(size_t offset, std::span<std::byte> out) const = 0;
  // A write of the driver's to configuration space. A device without a writable field ignores it.
  virtual void write_config(size_t /*offset*/, std::span<const std::byte> /*bytes*/) {}
  // What the driver has accepted (FEATURES_OK, §3.1.1): told before the first queue starts.
  virtual void set_features(uint64_t /*features*/) {}
  // How the device says that its configuration space has changed (§2.5): given by the transport before the driver can see the device,
  // callable from any thread until the device's end. Devices whose configuration never changes ignore it.
  virtual void on_config_change(std::function<void()> /*changed*/) {}

  // The driver is ready (DRIVER_OK). One call a queue: vhost-user starts queues one by one.
  virtual void start_queue(size_t index, ActiveQueue queue) = 0;
  // Returns when no thread of the device touches the queue any more; what was popped has been pushed back.
  virtual void stop_queue(size_t index) = 0;
  // The driver has reset the device or is gone: forget every connection and handle of the guest. All queues are stopped.
  virtual void reset() = 0;
};

// For read_config: the bytes of a configuration structure at `offset`, zeroes beyond its end.
inline void copy_config(std::span<const std::byte> config, size_t offset, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  if (offset < config.size()) std::ranges::copy(config.subspan(offset, std::min(out.size(), config.size() - offset)), out.begin());
}

}  // namespace tskata::virtio
