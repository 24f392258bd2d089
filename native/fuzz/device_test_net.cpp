// Cases of the network device: on a tap of a network namespace of the case's own, with a packet socket on the host's side; where the
// tap must have no room or be gone, on a socket pair in its place.
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "devices/net/net.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using namespace devices::net;
using os::checked;
using os::Descriptor;

constexpr size_t receive_queue = 0;
constexpr size_t transmit_queue = 1;
constexpr size_t buffer_bytes = 2048;
constexpr uint16_t test_protocol = 0x88b5;  // IEEE 802: for experiments
constexpr std::array<uint8_t, 6> mac{2, 0, 0, 0, 0, 9};
constexpr uint64_t plain = virtio::feature_indirect_desc | feature_mrg_rxbuf;
constexpr uint64_t offloaded = plain | feature_csum | feature_guest_csum | feature_guest_tso4 | feature_host_tso4;

struct Packet {
  PacketHeader header{};
  std::string frame;
};

std::string ethernet(uint16_t protocol, const std::string& payload) {
  std::string out(12, '\x02');
  out += static_cast<char>(protocol >> 8);
  out += static_cast<char>(protocol & 0xff);
  return out + payload;
}

std::string pattern(size_t length) {
  std::string out(length, '\0');
  for (size_t i = 0; i < length; ++i) out[i] = static_cast<char>('a' + i % 23);
  return out;
}

// A TCP packet of IPv4 that is to be cut into segments of 1000 bytes by whoever must.
Packet large_packet(size_t payload) {
  std::string ip(40, '\0');
  const size_t length = ip.size() + payload;
  ip[0] = 0x45;
  ip[2] = static_cast<char>(length >> 8);
  ip[3] = static_cast<char>(length & 0xff);
  ip[8] = 64;
  ip[9] = 6;
  ip[12] = 10, ip[15] = 1, ip[16] = 10, ip[19] = 2;
  ip[32] = 0x50;  // TCP header of 20 bytes
  ip[33] = 0x10;  // ACK
  return {{flag_needs_csum, gso_tcpv4, 54, 1000, 34, 16, 0}, ethernet(ETH_P_IP, ip + pattern(payload))};
}

// A network namespace with one tap that is up, and a socket on it that sees what the guest sends and sends what the guest gets.
class Host {
 public:
  explicit Host(int queues = 1) {
    checked(::unshare(CLONE_NEWNET), "unshare");
    const Descriptor quiet(::open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC));
    if (quiet) (void)!::write(quiet.get(), "1", 1);
    for (int i = 0; i < queues; ++i) taps.push_back(open_tap(IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0)));
    socket_.reset(checked(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), "socket"));
    ifreq request = named();
    request.ifr_flags = IFF_UP;
    checked(::ioctl(socket_.get(), SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex("t0"));
    checked(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
    const int on = 1;
    checked(::setsockopt(socket_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), "PACKET_VNET_HDR");
    checked(::setsockopt(socket_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on), "PACKET_IGNORE_OUTGOING");
  }

  static Descriptor open_tap(int flags) {
    Descriptor out(checked(::open("/dev/net/tun", O_RDWR | O_CLOEXEC), "open /dev/net/tun"));
    ifreq request = named();
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | flags);
    checked(::ioctl(out.get(), TUNSETIFF, &request), "TUNSETIFF");
    return out;
  }

  void send(const Packet& packet) {
    std::array<iovec, 2> pieces{{{const_cast<PacketHeader*>(&packet.header), 10}, {const_cast<char*>(packet.frame.data()), packet.frame.size()}}};
    expect(::writev(socket_.get(), pieces.data(), 2) == static_cast<ssize_t>(10 + packet.frame.size()), "the host sends");
  }
  void send(const std::string& payload) { send({{}, ethernet(test_protocol, payload)}); }

  std::optional<Packet> poll() {
    Packet out;
    out.frame.resize(70'000);
    std::array<iovec, 2> pieces{{{&out.header, 10}, {out.frame.data(), out.frame.size()}}};
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    if (got < 10) return std::nullopt;
    out.frame.resize(static_cast<size_t>(got) - 10);
    return out;
  }
  Packet receive() {
    std::optional<Packet> out;
    eventually([&] { return (out = poll()).has_value(); }, "the host gets a packet");
    return *out;
  }

  std::vector<Descriptor> taps;

 private:
  static ifreq named() {
    ifreq out{};
    std::strcpy(out.ifr_name, "t0");
    return out;
  }
  Descriptor socket_;
};

class Guest {
 public:
  Guest(std::vector<Descriptor> taps, uint64_t features, size_t buffers = 60, size_t bytes = buffer_bytes)
      : device(std::make_shared<NetDevice>(NetOptions{std::move(taps), mac, 1500})), front(device, true, features), bytes_(bytes) {
    offer(buffers);
  }

  void offer(size_t count) {
    for (size_t i = 0; i < count; ++i) offer_at(front.allocate(bytes_));
    front.kick(receive_queue);
  }

  void send(const PacketHeader& header, const std::string& frame) {
    const uint64_t at = front.allocate(sizeof header + frame.size());
    std::memcpy(front.at(at, sizeof header).data(), &header, sizeof header);
    std::memcpy(front.at(at + sizeof header, frame.size()).data(), frame.data(), frame.size());
    const auto rest = static_cast<uint32_t>(frame.size());
    front.queue(transmit_queue).add(std::array{RingDescriptor{at, 5, 0, 0}, RingDescriptor{at + 5, 7 + rest, 0, 0}});
    front.kick(transmit_queue);
  }
  void send(const std::string& payload) { send({}, ethernet(test_protocol, payload)); }
  void sent() { front.wait_used(transmit_queue); }

  // As Linux does: when the first buffer of a packet is there, the others must be.
  std::optional<Packet> poll() {
    std::optional<Used> used = front.queue(receive_queue).take();
    if (!used) return std::nullopt;
    Packet out;
    take(*used, out);
    std::memcpy(&out.header, out.frame.data(), sizeof out.header);
    for (int i = 1; i < out.header.num_buffers; ++i) {
      used = front.queue(receive_queue).take();
      expect(used.has_value(), "all buffers of a packet come together");
      take(*used, out);
    }
    out.frame.erase(0, sizeof out.header);
    return out;
  }
  Packet receive() {
    std::optional<Packet> out;
    eventually([&] { return (out = poll()).has_value(); }, "the guest gets a packet");
    return *out;
  }
  void nothing_comes() {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    expect(!poll(), "the guest gets nothing");
  }

  bool give_back = true;  // buffers are offered again as they come

  std::shared_ptr<NetDevice> device;
  FrontEnd front;

 private:
  void offer_at(uint64_t at) {
    const RingDescriptor piece{at, static_cast<uint32_t>(bytes_), flag_write, 0};
    offered_[front.queue(receive_queue).add({&piece, 1})] = at;
  }
  void take(const Used& used, Packet& out) {
    const uint64_t at = offered_.at(used.head);
    const auto bytes = front.at(at, used.length);
    out.frame.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (give_back) offer_at(at);
  }

  size_t bytes_;
  std::map<uint32_t, uint64_t> offered_;
};

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// No thread of the process runs in circles.
void is_idle() {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  expect(cpu_seconds() - before < 0.1, "no thread spins");
}

void sends() {
  Host host;
  Guest guest(std::move(host.taps), plain);
  guest.send("from the guest");
  guest.sent();
  expect(host.receive().frame == ethernet(test_protocol, "from the guest"), "what the host gets");
  expect(guest.front.interrupted(transmit_queue), "the driver is interrupted");
}

void receives() {
  Host host;
  Guest guest(std::move(host.taps), plain);
  for (const size_t length : {1, 100, 1500}) {
    host.send(pattern(length));
    const Packet packet = guest.receive();
    expect(packet.frame == ethernet(test_protocol, pattern(length)), "what the guest gets");
    expect(packet.header.num_buffers == 1 && packet.header.gso_type == 0 && packet.header.flags == 0, "its header");
  }
  expect(guest.front.interrupted(receive_queue), "the driver is interrupted");
}

void configuration() {
  Host host;
  const NetDevice device(NetOptions{std::move(host.taps), mac, 1400});
  Config config;
  device.read_config(0, std::as_writable_bytes(std::span(&config, 1)));
  expect(std::ranges::equal(config.mac, mac) && config.status == 1 && config.mtu == 1400 && config.max_virtqueue_pairs == 1, "configuration");
  expect((device.features() & (feature_mac | feature_mtu | feature_status)) == (feature_mac | feature_mtu | feature_status), "features");
  expect((device.features() & (feature_mq | feature_ctrl_vq)) == 0 && device.queue_count() == 2, "no control of nothing");
}

void large_to_host() {
  Host host;
  Guest guest(std::move(host.taps), offloaded);
  const Packet packet = large_packet(20'000);
  guest.send(packet.header, packet.frame);
  guest.sent();
  const Packet got = host.receive();
  expect(got.frame.size() == packet.frame.size() && got.header.gso_type == gso_tcpv4 && got.header.gso_size == 1000, "one packet, not yet cut");
  expect(got.frame.substr(54) == packet.frame.substr(54), "its data");
}

void large_to_guest() {
  Host host;
  Guest guest(std::move(host.taps), offloaded);
  const Packet packet = large_packet(40'000);
  host.send(packet);
  const Packet got = guest.receive();
  expect(got.frame.substr(54) == packet.frame.substr(54), "one packet, not cut");
  expect(got.header.gso_type == gso_tcpv4 && got.header.gso_size == 1000 && got.header.num_buffers == 20, "its header");
  host.send("after");
  expect(guest.receive().frame == ethernet(test_protocol, "after"), "the next one");
}

// The same with a guest that takes no offloads: the host must have cut it and computed the checksums.
void cut_for_the_guest() {
  Host host;
  Guest guest(std::move(host.taps), plain);
  const Packet packet = large_packet(5'000);
  host.send(packet);
  std::string data;
  for (int i = 0; i < 5; ++i) {
    const Packet got = guest.receive();
    expect(got.header.gso_type == gso_none && got.header.flags == 0 && got.frame.size() == 1054, "a segment");
    data += got.frame.substr(54);
  }
  expect(data == packet.frame.substr(54), "the data");
}

void offloads_end_with_the_driver() {
  Host host;
  Guest guest(std::move(host.taps), offloaded);
  guest.device->reset();
  host.send(large_packet(5'000));
  for (int i = 0; i < 5; ++i) expect(guest.receive().frame.size() == 1054, "a segment");
}

void not_mergeable() {
  Host host;
  Guest guest(std::move(host.taps), virtio::feature_indirect_desc, 4, 1000);
  host.send(pattern(500));
  const Packet packet = guest.receive();
  expect(packet.frame == ethernet(test_protocol, pattern(500)) && packet.header.num_buffers == 1, "one buffer a packet");
  host.send(pattern(1200));
  host.send("fits");
  expect(guest.receive().frame == ethernet(test_protocol, "fits"), "what does not fit is dropped");
}

void no_buffers() {
  Host host;
  Guest guest(std::move(host.taps), plain, 0);
  for (int i = 0; i < 5; ++i) host.send("packet " + std::to_string(i));
  is_idle();
  guest.nothing_comes();
  guest.offer(10);
  for (int i = 0; i < 5; ++i) expect(guest.receive().frame == ethernet(test_protocol, "packet " + std::to_string(i)), "in order, none lost");
}

// A packet for which the guest has not offered enough yet.
void too_few_buffers() {
  Host host;
  Guest guest(std::move(host.taps), offloaded, 2);
  const Packet packet = large_packet(9'000);
  host.send(packet);
  is_idle();
  guest.nothing_comes();
  guest.offer(1);
  guest.nothing_comes();
  guest.offer(5);
  expect(guest.receive().frame.substr(54) == packet.frame.substr(54), "the whole packet");
}

// Buffers taken ahead go back when the queue stops, also those of a packet that waits for more.
void stops_with_buffers() {
  Host host;
  Guest guest(std::move(host.taps), offloaded, 2);
  host.send("one");
  guest.give_back = false;
  guest.receive();
  host.send(large_packet(9'000));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  expect(guest.front.stop_queue(receive_queue) == 1, "one buffer is used, the other was never taken");
}

void drops(const PacketHeader& header, const std::string& frame, uint64_t features = offloaded) {
  Host host;
  Guest guest(std::move(host.taps), features);
  guest.send(header, frame);
  guest.sent();
  guest.send("good");
  guest.sent();
  expect(host.receive().frame == ethernet(test_protocol, "good"), "only the good one arrives");
}

void stops(size_t queue, std::vector<RingDescriptor> (*pieces)(uint64_t)) {
  Host host;
  Guest guest(std::move(host.taps), plain, 0);
  const auto list = pieces(guest.front.allocate(4096));
  guest.front.queue(queue).add(list);
  guest.front.kick(queue);
  host.send("x");
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  expect(!guest.front.queue(queue).take(), "nothing comes back");
  guest.front.stop_queue(queue);
  guest.front.start_queue(queue);
  if (queue == receive_queue) {
    guest.offer(4);
    host.send("y");
    guest.receive();
  } else {
    guest.send("y");
    guest.sent();
  }
}

// -- a socket pair in the tap's place ------------------------------------------------------------------------------------

struct Pair {
  std::vector<Descriptor> device;
  Descriptor host;
  Pair() {
    std::array<int, 2> ends;
    checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    device.emplace_back(ends[0]);
    host.reset(ends[1]);
  }
  std::string receive() {
    std::string out(70'000, '\0');
    ssize_t got = -1;
    eventually([&] { return (got = ::recv(host.get(), out.data(), out.size(), MSG_DONTWAIT)) > 0; }, "the host gets a packet");
    return out.substr(sizeof(PacketHeader), static_cast<size_t>(got) - sizeof(PacketHeader));
  }
};

void full_tap() {
  Pair pair;
  const int small = 4096;
  checked(::setsockopt(pair.device[0].get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "SO_SNDBUF");
  Guest guest(std::move(pair.device), plain);
  for (int i = 0; i < 20; ++i) guest.send(std::to_string(i) + pattern(1000));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  size_t done = 0;
  while (guest.front.queue(transmit_queue).take()) ++done;
  expect(done > 0 && done < 20, "some are sent, then there is no room");
  is_idle();
  for (int i = 0; i < 20; ++i) expect(pair.receive() == ethernet(test_protocol, std::to_string(i) + pattern(1000)), "all arrive, in order");
}

void stop_at_full_tap() {
  Pair pair;
  const int small = 4096;
  checked(::setsockopt(pair.device[0].get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "SO_SNDBUF");
  Guest guest(std::move(pair.device), plain);
  for (int i = 0; i < 20; ++i) guest.send(pattern(1000));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  uint32_t done = 0;
  while (guest.front.queue(transmit_queue).take()) ++done;
  expect(guest.front.stop_queue(transmit_queue) == done, "the packet that waited was put back");
}

void tap_goes() {
  Pair pair;
  Guest guest(std::move(pair.device), plain);
  pair.host.reset();
  is_idle();
  guest.send("into nothing");
  guest.sent();
  guest.front.stop_queue(receive_queue);
}

void short_packet_of_the_host() {
  Pair pair;
  Guest guest(std::move(pair.device), plain);
  expect(::send(pair.host.get(), "short", 5, 0) == 5, "the host sends");
  const std::string whole = std::string(12, '\0') + ethernet(test_protocol, "whole");
  expect(::send(pair.host.get(), whole.data(), whole.size(), 0) == static_cast<ssize_t>(whole.size()), "the host sends");
  expect(guest.receive().frame == ethernet(test_protocol, "whole"), "only the whole one arrives");
}

// -- many queues ---------------------------------------------------------------------------------------------------------

constexpr uint64_t many = plain | feature_mq | feature_ctrl_vq;
constexpr size_t control_queue = 4;

uint8_t set_pairs(Guest& guest, uint16_t pairs, uint8_t type = 4, uint8_t command = 0) {
  const std::array<uint8_t, 4> bytes{type, command, static_cast<uint8_t>(pairs & 0xff), static_cast<uint8_t>(pairs >> 8)};
  const Answer answer = exchange(guest.front, control_queue, std::as_bytes(std::span(bytes)), 1);
  expect(answer.written == 1, "length of the answer");
  return static_cast<uint8_t>(answer.bytes[0]);
}

void queue_pairs() {
  Host host(2);
  const Descriptor second(checked(::fcntl(host.taps[1].get(), F_DUPFD_CLOEXEC, 0), "dup"));
  const auto attached = [&] {
    ifreq request{};
    checked(::ioctl(second.get(), TUNGETIFF, &request), "TUNGETIFF");
    return (request.ifr_flags & IFF_DETACH_QUEUE) == 0;
  };
  Guest guest(std::move(host.taps), many);
  expect(guest.device->queue_count() == 5 && !attached(), "one pair until the driver asks for more");
  is_idle();
  expect(set_pairs(guest, 2) == 0 && attached(), "two pairs");
  guest.send("x");
  guest.sent();
  expect(host.receive().frame == ethernet(test_protocol, "x"), "packets go on");
  expect(set_pairs(guest, 0) == 1 && set_pairs(guest, 3) == 1 && set_pairs(guest, 1, 0) == 1 && set_pairs(guest, 1, 4, 1) == 1, "what is refused");
  expect(exchange(guest.front, control_queue, std::array<std::byte, 3>{}, 1).bytes[0] == std::byte{1}, "half a command");
  expect(attached(), "nothing changed by it");
  guest.device->reset();
  expect(!attached(), "one pair after a reset");
}

void refused_taps() {
  Host host;
  const auto refused = [](std::vector<Descriptor> taps, uint16_t mtu = 1500) {
    try {
      NetDevice(NetOptions{std::move(taps), mac, mtu});
    } catch (const std::invalid_argument&) {
      return;
    }
    expect(false, "refused");
  };
  refused({});
  std::array<int, 2> ends;
  checked(::pipe2(ends.data(), O_CLOEXEC), "pipe");
  const Descriptor reader(ends[0]);
  std::vector<Descriptor> pipe;
  pipe.emplace_back(ends[1]);
  refused(std::move(pipe));
  host.taps.clear();  // its interface goes with it
  std::vector<Descriptor> bare;
  bare.push_back(Host::open_tap(0));
  refused(std::move(bare));
  refused(std::move(Pair().device), 67);
}

Descriptor host_end;  // of the device under breakage

std::shared_ptr<virtio::Device> make_of_two_pairs() {
  std::vector<Descriptor> taps = std::move(Pair().device);
  taps.push_back(std::move(Pair().device.front()));
  return std::make_shared<NetDevice>(NetOptions{std::move(taps), mac, 0});
}

std::shared_ptr<virtio::Device> make_on_pair() {
  Pair pair;
  host_end = std::move(pair.host);
  return std::make_shared<NetDevice>(NetOptions{std::move(pair.device), mac, 0});
}

}  // namespace

std::vector<Case> net_cases() {
  using D = RingDescriptor;
  const std::string frame = large_packet(2000).frame;
  const PacketHeader large = large_packet(2000).header;
  const auto with = [large](auto&& change) {
    PacketHeader out = large;
    change(out);
    return out;
  };
  std::vector<Case> out{
      {"net: the guest sends", sends},
      {"net: the guest receives", receives},
      {"net: configuration", configuration},
      {"net: a large packet to the host", large_to_host},
      {"net: a large packet to the guest", large_to_guest},
      {"net: a large packet is cut for a guest without offloads", cut_for_the_guest},
      {"net: offloads end with the driver", offloads_end_with_the_driver},
      {"net: without mergeable buffers", not_mergeable},
      {"net: no receive buffers", no_buffers},
      {"net: too few receive buffers", too_few_buffers},
      {"net: stopped with buffers taken ahead", stops_with_buffers},
      {"net: a frame without an Ethernet header is dropped", [] { drops({}, "short"); }},
      {"net: a frame beyond all measure is dropped", [] { drops({}, ethernet(test_protocol, pattern(66'000))); }},
      {"net: segmentation that was not accepted is dropped", [=] { drops(large, frame, plain | feature_csum); }},
      {"net: a checksum that was not accepted is dropped", [=] { drops(with([](auto& h) { h.gso_type = 0; }), frame, plain); }},
      {"net: segmentation without a checksum is dropped", [=] { drops(with([](auto& h) { h.flags = 0; }), frame); }},
      {"net: segments of no bytes are dropped", [=] { drops(with([](auto& h) { h.gso_size = 0; }), frame); }},
      {"net: an unknown segmentation is dropped", [=] { drops(with([](auto& h) { h.gso_type = 9; }), frame); }},
      {"net: ECN that was not accepted is dropped", [=] { drops(with([](auto& h) { h.gso_type |= gso_ecn; }), frame); }},
      {"net: a checksum outside the frame is dropped", [=] { drops(with([](auto& h) { h.csum_start = 0xffff; }), frame); }},
      {"net: a packet shorter than its header", [] { stops(transmit_queue, [](uint64_t at) {
                                                       return std::vector{D{at, 11, 0, 0}};
                                                     }); }},
      {"net: a packet of no bytes", [] { stops(transmit_queue, [](uint64_t at) {
                                           return std::vector{D{at, 0, 0, 0}};
                                         }); }},
      {"net: a writable packet", [] { stops(transmit_queue, [](uint64_t at) {
                                        return std::vector{D{at, 100, 0, 0}, D{at, 100, flag_write, 0}};
                                      }); }},
      {"net: a readable receive buffer", [] { stops(receive_queue, [](uint64_t at) {
                                                return std::vector{D{at, 2000, 0, 0}};
                                              }); }},
      {"net: a receive buffer of no bytes", [] { stops(receive_queue, [](uint64_t at) {
                                                   return std::vector{D{at, 0, flag_write, 0}};
                                                 }); }},
      {"net: a receive buffer shorter than the header",
       [] { stops(receive_queue, [](uint64_t at) {
              return std::vector{D{at, 11, flag_write, 0}};
            }); }},
      {"net: a tap without room", full_tap},
      {"net: stopped while the tap has no room", stop_at_full_tap},
      {"net: the tap goes", tap_goes},
      {"net: a short packet from the host", short_packet_of_the_host},
      {"net: pairs of queues", queue_pairs},
      {"net: taps that are refused", refused_taps},
  };
  add_breakages(out, "net transmit", transmit_queue, make_on_pair,
                [](FrontEnd& front) {
                  const std::string bytes = std::string(12, '\0') + ethernet(test_protocol, "x");
                  std::array<char, 1> part;
                  while (::recv(host_end.get(), part.data(), part.size(), MSG_DONTWAIT | MSG_TRUNC) >= 0) {
                  }  // what was sent before, until there is room
                  exchange(front, transmit_queue, std::as_bytes(std::span(bytes)), 0);
                },
                {std::vector<std::byte>(64), 0});
  const std::vector<std::byte> one_pair{std::byte{4}, std::byte{0}, std::byte{1}, std::byte{0}};
  add_breakages(
      out, "net control", control_queue, make_of_two_pairs,
      [one_pair](FrontEnd& front) { expect(exchange(front, control_queue, one_pair, 1).bytes[0] == std::byte{0}, "a command"); }, {one_pair, 1},
      many);
  out.push_back({"net receive: tables that change while they are read", [] {
                   FrontEnd front(make_on_pair());
                   const std::jthread host([](const std::stop_token& done) {
                     const std::string bytes = std::string(12, '\0') + ethernet(test_protocol, "x");
                     while (!done.stop_requested()) {
                       if (::send(host_end.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) < 0)
                         std::this_thread::sleep_for(std::chrono::milliseconds(1));
                     }
                   });
                   flip_tables(front, receive_queue, {{}, 2048});
                   front.queue(receive_queue).add(std::array{D{front.allocate(2048), 2048, flag_write, 0}});
                   front.kick(receive_queue);
                   front.wait_used(receive_queue);
                 }});
  // The receive queue is looked at once there is a packet.
  for (const Breakage& how : breakages()) {
    out.push_back({std::string("net receive: ") + how.name, [&how] {
                     FrontEnd front(make_on_pair());
                     how.make(front, receive_queue);
                     front.kick(receive_queue);
                     const std::string bytes = std::string(12, '\0') + ethernet(test_protocol, "x");
                     expect(::send(host_end.get(), bytes.data(), bytes.size(), 0) > 0, "the host sends");
                     std::this_thread::sleep_for(std::chrono::milliseconds(20));
                     expect(!front.queue(receive_queue).take(), "nothing comes");
                     front.stop_queue(receive_queue);
                     front.start_queue(receive_queue);
                     front.queue(receive_queue).add(std::array{D{front.allocate(2048), 2048, flag_write, 0}});
                     front.kick(receive_queue);
                     front.wait_used(receive_queue);  // the packet is still there: nothing was read while the queue was broken
                   }});
  }
  return out;
}

}  // namespace tskata::testing
