// virtio-rng (virtio 1.2 §5.4): the host's random bytes.
#pragma once
#include <memory>

#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::rng {

class RngDevice final : public virtio::Device {
 public:
  uint32_t device_id() const override { return 4; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return 1; }
  uint16_t max_queue_size() const override { return 64; }
  void read_config(size_t offset, std::span<std::byte> out) const override { virtio::copy_config({}, offset, out); }  // §5.4.4: none
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override {}

 private:
  std::unique_ptr<virtio::QueueWorkers> worker_;
};

}  // namespace tskata::devices::rng
