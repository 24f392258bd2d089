// Receive buffers taken ahead, filled, given back together.
#include "devices/net/receiver.h"

#include <poll.h>

#include <algorithm>
#include <climits>

#include "virtio/pieces.h"

namespace tskata::devices::net {

namespace {

constexpr size_t max_pieces = IOV_MAX - 1;  // of the guest's; the spill buffer is one more

}  // namespace

Receiver::Receiver(const Tap& tap, virtio::QueueReader& reader, size_t largest, bool mergeable)
    : tap_(tap), reader_(reader), largest_(largest), mergeable_(mergeable), spill_(max_packet_bytes) {}

void Receiver::run() {
  while (reader_.wait_for(tap_.fd(), POLLIN)) {
    Outcome outcome;
    do outcome = receive();
    while (outcome == Outcome::received && !reader_.stopped());
    // The interface is gone for good, and poll would say so at once and forever: only the stop is waited for.
    if (outcome == Outcome::broken) reader_.wait_for(-1, 0);
  }
  for (size_t i = 0; i < offered_.size(); ++i) reader_.queue().unpop();
}

Receiver::Outcome Receiver::receive() {
  if (offered_.empty() && !wait_for_buffer()) return Outcome::none;
  take_ahead();
  std::vector<iovec> into = room();
  size_t direct = 0;
  for (const iovec& piece : into) direct += piece.iov_len;
  into.push_back({spill_.data(), spill_.size()});
  const ssize_t got = tap_.read(into);
  if (got == -EAGAIN) return Outcome::none;
  if (got <= 0) return Outcome::broken;
  const auto length = static_cast<size_t>(got);
  // Too short to be a packet, or cut by the end of the spill buffer: dropped, and the buffers are as good as before.
  if (length < sizeof(PacketHeader) || length == direct + spill_.size()) return Outcome::received;
  return deliver(length, direct) ? Outcome::received : Outcome::none;
}

// False once stopped.
bool Receiver::wait_for_buffer() {
  virtio::Chain chain;
  return reader_.take(chain) && offer(std::move(chain));
}

bool Receiver::offer(virtio::Chain chain) {
  if (chain.readable_bytes != 0) throw virtio::QueueFault("readable buffer on the receive queue");
  // §5.1.6.3.1: a buffer holds the header at least; without this a packet could need more buffers than anyone has.
  if (chain.writable_bytes < sizeof(PacketHeader)) throw virtio::QueueFault("receive buffer shorter than a packet header");
  offered_bytes_ += chain.writable_bytes;
  offered_pieces_ += chain.writable.size();
  offered_.push_back(std::move(chain));
  return true;
}

void Receiver::take_ahead() {
  if (!mergeable_) return;
  virtio::Chain chain;
  while (offered_bytes_ < largest_ && offered_pieces_ < max_pieces && reader_.queue().pop(chain)) offer(std::move(chain));
}

// The pieces a packet may be read into: of one buffer, or of all where one packet may fill many.
std::vector<iovec> Receiver::room() const {
  std::vector<iovec> out;
  for (const virtio::Chain& chain : offered_) {
    for (const iovec& piece : chain.writable) {
      if (out.size() < max_pieces) out.push_back(piece);
    }
    if (!mergeable_) break;
  }
  return out;
}

// A packet of so many bytes, of which `direct` at most are in the guest's buffers and the others in the spill buffer. False once stopped.
bool Receiver::deliver(size_t length, size_t direct) {
  if (!mergeable_ && length > offered_.front().writable_bytes) return true;  // the driver offers too little for its features: dropped
  while (mergeable_ && offered_bytes_ < length) {
    if (!wait_for_buffer()) return false;
  }
  std::span<const std::byte> rest = std::span(spill_).first(length - std::min(length, direct));
  size_t skip = direct;
  size_t buffers = 0;
  for (size_t covered = 0; covered < length; ++buffers) {
    const virtio::Chain& chain = offered_[buffers];
    covered += chain.writable_bytes;
    const size_t spilled = virtio::scatter(rest, chain.writable, std::min(skip, chain.writable_bytes));
    rest = rest.subspan(spilled);
    skip -= std::min(skip, chain.writable_bytes);
  }
  put(length, buffers);
  return true;
}

void Receiver::put(size_t length, size_t buffers) {
  // §5.1.6.4.1: without mergeable buffers the number is 1 as well. The kernel leaves the field alone.
  const auto number = static_cast<uint16_t>(buffers);
  virtio::scatter(std::as_bytes(std::span(&number, 1)), offered_.front().writable, offsetof(PacketHeader, num_buffers));
  std::vector<virtio::Used> used;
  for (size_t i = 0; i < buffers; ++i) {
    const virtio::Chain& chain = offered_.front();
    const size_t written = std::min(length, chain.writable_bytes);
    used.push_back({chain.head, static_cast<uint32_t>(written)});
    length -= written;
    offered_bytes_ -= chain.writable_bytes;
    offered_pieces_ -= chain.writable.size();
    offered_.pop_front();
  }
  reader_.put(used);
}

}  // namespace tskata::devices::net
