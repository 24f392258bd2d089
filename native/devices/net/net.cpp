// virtio-net: features, queues, what is sent, control.
#include "devices/net/net.h"

#include <poll.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <stdexcept>

#include "devices/net/receiver.h"
#include "virtio/pieces.h"

namespace tskata::devices::net {

namespace {

// What a guest may ask of the host's stack in a header is what it has negotiated; all else is dropped here. The kernel checks what it
// gets from a tap as well, but it knows nothing of features.
bool is_allowed(const PacketHeader& header, size_t frame, uint64_t accepted) {
  const auto may = [&](uint64_t feature) { return (accepted & feature) != 0; };
  const bool csum = (header.flags & flag_needs_csum) != 0;
  if (csum && (!may(feature_csum) || size_t{header.csum_start} + header.csum_offset + 2 > frame)) return false;
  if ((header.gso_type & gso_ecn) != 0 && !may(feature_host_ecn)) return false;
  const uint8_t type = header.gso_type & static_cast<uint8_t>(~gso_ecn);
  if (type == gso_none) return header.gso_type == gso_none;
  if (!csum || header.gso_size == 0) return false;  // §5.1.6.2.1
  switch (type) {
    case gso_tcpv4: return may(feature_host_tso4);
    case gso_tcpv6: return may(feature_host_tso6);
    case gso_udp: return may(feature_host_ufo);
    default: return false;
  }
}

// Sends one packet, or drops what no wire would take. False when the queue was stopped while the tap had no room.
bool send(const Tap& tap, const virtio::QueueReader& reader, const virtio::Chain& chain, uint64_t accepted) {
  PacketHeader header;
  if (virtio::gather(chain.readable, std::as_writable_bytes(std::span(&header, 1))) < sizeof header) {
    throw virtio::QueueFault("packet shorter than its header");
  }
  if (chain.writable_bytes != 0) throw virtio::QueueFault("writable buffer on the transmit queue");
  const size_t frame = chain.readable_bytes - sizeof header;
  if (frame < ethernet_bytes || chain.readable_bytes > max_packet_bytes || !is_allowed(header, frame, accepted)) return true;
  // Sent from our copy: the guest cannot change what was just checked.
  header.flags &= flag_needs_csum;  // §5.1.6.2.2: bits that we do not know are ignored
  header.num_buffers = 0;
  std::vector<iovec> pieces = virtio::window(chain.readable, sizeof header, frame);
  pieces.insert(pieces.begin(), iovec{&header, sizeof header});
  if (pieces.size() > IOV_MAX) return true;
  while (tap.write(pieces) == -EAGAIN) {
    if (!reader.wait_for(tap.fd(), POLLOUT)) return false;
  }
  return true;  // sent, or refused: an interface that is down or a header that makes no sense loses its packet
}

void transmit(virtio::QueueReader& reader, const Tap& tap, uint64_t accepted) {
  virtio::Chain chain;
  while (reader.take(chain)) {
    if (!send(tap, reader, chain, accepted)) return reader.queue().unpop();
    reader.put(chain.head, 0);
  }
}

}  // namespace

NetDevice::NetDevice(NetOptions options) : mac_(options.mac), mtu_(options.mtu) {
  if (options.taps.empty() || options.taps.size() > 0x8000) throw std::invalid_argument("a network device needs 1 to 32768 taps");  // §5.1.4.1
  if (mtu_ != 0 && mtu_ < 68) throw std::invalid_argument("the MTU is below 68");                                                   // §5.1.4.1
  for (os::Descriptor& fd : options.taps) taps_.emplace_back(std::move(fd));
  workers_.resize(queue_count());
  if (!use_pairs(1)) throw std::invalid_argument("the taps are not queues of one interface");
}

uint64_t NetDevice::features() const {
  uint64_t out = feature_mac | feature_status | feature_mrg_rxbuf | virtio::feature_indirect_desc | virtio::feature_event_idx;
  if (mtu_ != 0) out |= feature_mtu;
  if (taps_.size() > 1) out |= feature_ctrl_vq | feature_mq;
  if (!std::ranges::all_of(taps_, &Tap::offloads)) return out;
  out |= feature_csum | feature_host_tso4 | feature_host_tso6 | feature_host_ecn | feature_host_ufo;
  return out | feature_guest_csum | feature_guest_tso4 | feature_guest_tso6 | feature_guest_ecn | feature_guest_ufo;
}

void NetDevice::read_config(size_t offset, std::span<std::byte> out) const {
  Config config{};
  std::ranges::copy(mac_, config.mac);
  config.status = status_link_up;
  config.max_virtqueue_pairs = static_cast<uint16_t>(taps_.size());
  config.mtu = mtu_;
  virtio::copy_config(std::as_bytes(std::span(&config, 1)), offset, out);
}

void NetDevice::set_features(uint64_t features) {
  accepted_ = features;
  taps_.front().set_offloads(features);
}

void NetDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  // §5.1.2: without MQ there is one pair, and the control queue comes right behind it.
  const size_t pairs = (accepted_ & feature_mq) != 0 ? taps_.size() : 1;
  virtio::QueueWorkers::Body body;
  if (index < 2 * pairs) {
    body = [this, index, accepted = accepted_](virtio::QueueReader& reader) {
      const Tap& tap = taps_[index / 2];
      return index % 2 == 0 ? receive(reader, tap, accepted) : transmit(reader, tap, accepted);
    };
  } else if (index == 2 * pairs && (accepted_ & feature_ctrl_vq) != 0) {
    body = virtio::QueueWorkers::each([this](const virtio::Chain& chain) { return control(chain); });
  } else {
    return;  // not a queue of what was negotiated
  }
  workers_[index] = std::make_unique<virtio::QueueWorkers>("net", std::move(queue), 1, std::move(body));
}

void NetDevice::stop_queue(size_t index) { workers_[index].reset(); }

void NetDevice::reset() {
  set_features(0);
  (void)use_pairs(1);  // as far as the host still has the interface
}

void NetDevice::receive(virtio::QueueReader& reader, const Tap& tap, uint64_t accepted) const {
  constexpr uint64_t large = feature_guest_tso4 | feature_guest_tso6 | feature_guest_ufo;
  constexpr size_t vlan_bytes = 8;
  const size_t frame = ethernet_bytes + vlan_bytes + (mtu_ != 0 ? mtu_ : 1500);
  const size_t largest = (accepted & large) != 0 ? max_packet_bytes : sizeof(PacketHeader) + frame;
  Receiver(tap, reader, largest, (accepted & feature_mrg_rxbuf) != 0).run();
}

size_t NetDevice::control(const virtio::Chain& chain) {
  if (chain.writable_bytes == 0) throw virtio::QueueFault("control command without room for its answer");
  const uint8_t answer = execute(chain) ? control_ok : control_failed;
  return virtio::scatter(std::as_bytes(std::span(&answer, 1)), chain.writable);
}

bool NetDevice::execute(const virtio::Chain& chain) {
  std::array<uint8_t, 4> command;  // class, command, number of pairs
  if (virtio::gather(chain.readable, std::as_writable_bytes(std::span(command))) < command.size()) return false;
  if (command[0] != control_mq || command[1] != control_mq_pairs_set) return false;
  uint16_t pairs;
  std::memcpy(&pairs, command.data() + 2, sizeof pairs);
  return pairs != 0 && pairs <= taps_.size() && use_pairs(pairs);
}

// §5.1.6.5.5: packets go to the first queues only, one pair after a reset.
bool NetDevice::use_pairs(size_t pairs) {
  bool done = true;
  for (size_t i = 0; i < taps_.size(); ++i) done &= taps_[i].attach(i < pairs);
  return done;
}

}  // namespace tskata::devices::net
