// virtio-balloon (virtio 1.2 §5.5): the guest's unused memory goes back to the host, when it is asked for (inflating) and by itself
// (free page reporting).
#pragma once
#include <array>
#include <memory>
#include <mutex>

#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::balloon {

class BalloonDevice final : public virtio::Device {
 public:
  // Pages of the protocol, whatever the page size of guest and host.
  static constexpr uint64_t page_bytes = 4096;

  uint32_t device_id() const override { return 5; }
  uint64_t features() const override;
  size_t queue_count() const override { return 5; }
  uint16_t max_queue_size() const override { return 128; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void write_config(size_t offset, std::span<const std::byte> bytes) override;
  void on_config_change(std::function<void()> changed) override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override;

  // How many pages the guest shall give up in all. It comes there as it can, or never: `actual` says.
  void set_target(uint32_t pages);
  // What the driver last said that it has given up.
  uint32_t actual() const;

 private:
  // §5.5.4, without the fields of features that are not offered.
  struct Config {
    uint32_t num_pages = 0;
    uint32_t actual = 0;
  };

  mutable std::mutex mutex_;  // config_, changed_
  Config config_;
  std::function<void()> changed_;
  std::array<std::unique_ptr<virtio::QueueWorkers>, 5> workers_;
};

}  // namespace tskata::devices::balloon
