// virtio-net (virtio 1.2 §5.1): the guest's network interface on a tap, one thread a queue.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "devices/net/packet.h"
#include "devices/net/tap.h"
#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::net {

struct NetOptions {
  std::vector<os::Descriptor> taps;  // one a pair of queues: those of one interface (IFF_MULTI_QUEUE) when there are several
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 0;  // 0: not told to the guest
};

class NetDevice final : public virtio::Device {
 public:
  explicit NetDevice(NetOptions options);

  uint32_t device_id() const override { return 1; }
  uint64_t features() const override;
  // §5.1.2: receive and transmit of each pair; a control queue only where there is something to control.
  size_t queue_count() const override { return taps_.size() > 1 ? 2 * taps_.size() + 1 : 2; }
  uint16_t max_queue_size() const override { return 256; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void set_features(uint64_t features) override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override;

 private:
  void receive(virtio::QueueReader& reader, const Tap& tap, uint64_t accepted) const;
  size_t control(const virtio::Chain& chain);
  bool execute(const virtio::Chain& chain);
  bool use_pairs(size_t pairs);

  std::vector<Tap> taps_;
  std::array<uint8_t, 6> mac_;
  uint16_t mtu_;
  uint64_t accepted_ = 0;  // of the transport's thread; a queue's thread has the value of its start
  std::vector<std::unique_ptr<virtio::QueueWorkers>> workers_;
};

}  // namespace tskata::devices::net
