// Packets from a tap into the guest's receive buffers (virtio 1.2 §5.1.6.4); one thread's.
//
// The kernel writes a packet straight into the buffers that the driver has offered. How large it is shows only then, so buffers are
// taken ahead for the largest the guest may get, and kept for the next packet when this one was smaller. What a driver with few buffers
// has no room for lands in a spill buffer behind them and follows as buffers come. While the guest offers none, the tap is not read:
// its queue fills and the host's kernel drops, as a wire would.
#pragma once
#include <deque>
#include <vector>

#include "devices/net/packet.h"
#include "devices/net/tap.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::net {

class Receiver {
 public:
  // `largest`: what a packet with its header is expected to have at most; `mergeable`: MRG_RXBUF was accepted.
  Receiver(const Tap& tap, virtio::QueueReader& reader, size_t largest, bool mergeable);

  // Until the queue is stopped; gives the buffers that it holds back.
  void run();

 private:
  enum class Outcome { received, none, broken };

  Outcome receive();
  bool offer(virtio::Chain chain);
  bool wait_for_buffer();
  void take_ahead();
  std::vector<iovec> room() const;
  bool deliver(size_t length, size_t direct);
  void put(size_t length, size_t buffers);

  const Tap& tap_;
  virtio::QueueReader& reader_;
  size_t largest_;
  bool mergeable_;
  std::deque<virtio::Chain> offered_;  // popped and unused, oldest first
  size_t offered_bytes_ = 0;
  size_t offered_pieces_ = 0;
  std::vector<std::byte> spill_;
};

}  // namespace tskata::devices::net
