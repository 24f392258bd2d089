// virtio-pmem (virtio 1.2 §5.19): tells the driver where memory of a file is, and makes what was written there last.
//
// The mapping is the VMM's: a memory slot of its own, which is no part of the memory the queues' addresses are in.
#pragma once
#include <memory>

#include "linux/descriptor.h"
#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::pmem {

struct PmemOptions {
  uint64_t guest_address = 0;
  uint64_t size = 0;
  os::Descriptor file;  // what a FLUSH syncs; none for a read-only image, where nothing needs to
};

class PmemDevice final : public virtio::Device {
 public:
  // Throws std::invalid_argument for a range that is not of whole pages.
  explicit PmemDevice(PmemOptions options);

  uint32_t device_id() const override { return 27; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return 1; }
  uint16_t max_queue_size() const override { return 64; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override {}

 private:
  size_t serve(const virtio::Chain& chain) const;

  PmemOptions options_;
  std::unique_ptr<virtio::QueueWorkers> worker_;
};

}  // namespace tskata::devices::pmem
