// virtio-fs (virtio 1.2 §5.11): the FUSE server on virtqueues.
#pragma once
#include <array>
#include <memory>
#include <string>

#include "devices/fs/server.h"
#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::fs {

struct FsOptions {
  std::string root;
  std::string tag;
  unsigned threads = 4;
};

class FsDevice final : public virtio::Device {
 public:
  explicit FsDevice(FsOptions options);

  uint32_t device_id() const override { return 26; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return 2; }  // hiprio, one request queue
  uint16_t max_queue_size() const override { return 1024; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override;

 private:
  FsOptions options_;
  Server server_;
  std::array<std::unique_ptr<virtio::QueueWorkers>, 2> workers_;
};

}  // namespace tskata::devices::fs
