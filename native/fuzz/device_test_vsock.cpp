// Cases of the vsock device: a guest's driver by hand on one side, host sockets on the other.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <array>
#include <fstream>
#include <utility>

#include "devices/vsock/packet.h"
#include "devices/vsock/vsock.h"
#include "fuzz/device_test.h"
#include "linux/unix_socket.h"

namespace tskata::testing {

namespace {

using namespace devices::vsock;
using os::Descriptor;

constexpr size_t receive_queue = 0;
constexpr size_t transmit_queue = 1;
constexpr size_t buffer_bytes = sizeof(PacketHeader) + 4096;
constexpr size_t buffers = 32;
constexpr size_t transmit_bytes = 128 * 1024;
constexpr uint32_t device_space = 256 * 1024;  // what the device announces as its receive space
constexpr uint32_t guest_port = 4321;
constexpr uint32_t host_port = 1234;
constexpr uint32_t direct_port = 1025;

struct Packet {
  PacketHeader header;
  std::string data;
};

// A guest: sends packets, receives them, keeps its receive queue filled.
class Guest {
 public:
  explicit Guest(bool fill = true, uint64_t features = virtio::feature_indirect_desc)
      : listener_(os::listen_unix(folder_ / ("v_" + std::to_string(host_port)), SOCK_STREAM, 16)),
        device_(std::make_shared<VsockDevice>(VsockOptions{3, folder_ / "v", {direct_port}})),
        front_(device_, true, features),
        receive_(front_.allocate(buffers * buffer_bytes)),
        transmit_(front_.allocate(transmit_bytes)) {
    if (fill) offer_all();
  }

  void offer_all() {
    for (size_t i = 0; i < buffers; ++i) offer(i);
    front_.kick(receive_queue);
  }

  // Waits for the device to have taken the packet.
  void send(PacketHeader header, const std::string& data = "") {
    header.length = static_cast<uint32_t>(data.size());
    send_as_is(header, data);
    front_.wait_used(transmit_queue);
  }
  void send(uint16_t op, const std::string& data = "", uint32_t flags = 0) {
    PacketHeader header = blank(op);
    header.flags = flags;
    send(header, data);
  }
  // Header and data in descriptors of their own.
  void send_as_is(const PacketHeader& header, const std::string& data) {
    std::memcpy(front_.at(transmit_, sizeof header).data(), &header, sizeof header);
    if (!data.empty()) std::memcpy(front_.at(transmit_ + 64, data.size()).data(), data.data(), data.size());
    std::vector<RingDescriptor> pieces{{transmit_, sizeof header, 0, 0}};
    if (!data.empty()) pieces.push_back({transmit_ + 64, static_cast<uint32_t>(data.size()), 0, 0});
    front_.queue(transmit_queue).add(pieces);
    front_.kick(transmit_queue);
  }

  PacketHeader blank(uint16_t op) const {
    PacketHeader out{};
    out.src_cid = 3;
    out.dst_cid = host_cid;
    out.src_port = from;
    out.dst_port = to;
    out.type = type_stream;
    out.op = op;
    out.buf_alloc = space;
    out.fwd_cnt = taken;
    return out;
  }

  std::optional<Packet> poll() {
    const auto used = front_.queue(receive_queue).take();
    if (!used) return std::nullopt;
    const size_t buffer = offered_.at(used->head);
    const auto bytes = front_.at(receive_ + buffer * buffer_bytes, used->length);
    Packet out;
    std::memcpy(&out.header, bytes.data(), sizeof out.header);
    out.data.assign(reinterpret_cast<const char*>(bytes.data()) + sizeof out.header, out.header.length);
    expect(used->length == sizeof out.header + out.header.length, "used length");
    taken += out.header.op == op_rw ? out.header.length : 0;
    offer(buffer);
    front_.kick(receive_queue);
    return out;
  }
  Packet receive() {
    std::optional<Packet> out;
    eventually([&] { return (out = poll()).has_value(); }, "a packet");
    return *out;
  }
  // The next packet of this kind; credit updates may come at any time.
  Packet receive(uint16_t op) {
    for (;;) {
      Packet packet = receive();
      if (packet.header.op == op) return packet;
      expect(packet.header.op == op_credit_update, "operation " + std::to_string(packet.header.op) + " instead of " + std::to_string(op));
    }
  }
  std::string receive_data(size_t length) {
    std::string out;
    while (out.size() < length) out += receive(op_rw).data;
    return out;
  }
  void nothing_comes() {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    expect(!poll(), "no packet");
  }

  Descriptor accept() {
    Descriptor out;
    eventually([&] { return out.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)), static_cast<bool>(out); }, "a connection");
    return out;
  }
  Descriptor connect(const std::string& suffix) const { return os::connect_unix(folder_ / ("v" + suffix), SOCK_STREAM); }

  // The guest connects to the host; the host's socket.
  Descriptor open() {
    send(op_request);
    receive(op_response);
    return accept();
  }

  FrontEnd& front() { return front_; }
  VsockDevice& device() { return *device_; }

  uint32_t from = guest_port;
  uint32_t to = host_port;
  uint32_t space = 1 << 20;
  uint32_t taken = 0;

 private:
  void offer(size_t buffer) {
    const RingDescriptor piece{receive_ + buffer * buffer_bytes, buffer_bytes, flag_write, 0};
    offered_[front_.queue(receive_queue).add({&piece, 1})] = buffer;
  }

  TemporaryFolder folder_;
  Descriptor listener_;
  std::shared_ptr<VsockDevice> device_;
  FrontEnd front_;
  uint64_t receive_;
  uint64_t transmit_;
  std::map<uint32_t, size_t> offered_;
};

void host_writes(const Descriptor& socket, const std::string& data) {
  expect(::send(socket.get(), data.data(), data.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(data.size()), "the host writes");
}

// Exactly so many bytes, or fewer at the end of the stream.
std::string host_reads(const Descriptor& socket, size_t length) {
  std::string out(length, '\0');
  const ssize_t got = ::recv(socket.get(), out.data(), length, MSG_WAITALL);
  out.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return out;
}

std::string pattern(size_t length, char first = 'a') {
  std::string out(length, '\0');
  for (size_t i = 0; i < length; ++i) out[i] = static_cast<char>(first + static_cast<char>(i % 23));
  return out;
}

void guest_connects() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(op_rw, "from the guest");
  expect(host_reads(host, 14) == "from the guest", "data to the host");
  host_writes(host, "from the host");
  const Packet packet = guest.receive(op_rw);
  expect(packet.data == "from the host", "data to the guest");
  expect(packet.header.src_cid == 2 && packet.header.dst_cid == 3 && packet.header.src_port == host_port && packet.header.dst_port == guest_port &&
             packet.header.type == type_stream,
         "addresses");
  expect(packet.header.buf_alloc == device_space && packet.header.fwd_cnt == 14, "credit in the header");
  expect(guest.front().interrupted(receive_queue), "the driver is interrupted");
}

void answer_request(Guest& guest, uint32_t port) {
  const Packet request = guest.receive(op_request);
  expect(request.header.dst_port == port, "guest port");
  guest.from = port;
  guest.to = request.header.src_port;
  guest.send(op_response);
}

void host_connects() {
  Guest guest;
  const Descriptor host = guest.connect("");
  host_writes(host, "CONNECT 77\nearly");  // what follows the line belongs to the stream
  answer_request(guest, 77);
  const std::string answer = "OK " + std::to_string(guest.to) + "\n";
  expect(host_reads(host, answer.size()) == answer, "OK and the port");
  expect(guest.receive_data(5) == "early", "data to the guest");
  guest.send(op_rw, "hello");
  expect(host_reads(host, 5) == "hello", "data to the host");
}

void direct_socket() {
  Guest guest;
  const Descriptor host = guest.connect("_g" + std::to_string(direct_port));
  answer_request(guest, direct_port);
  host_writes(host, "x");
  expect(guest.receive_data(1) == "x", "data to the guest");
  guest.send(op_rw, "y");
  expect(host_reads(host, 1) == "y", "data to the host, with no line before it");
}

// A stream that the host opens without a socket file.
class Call {
 public:
  explicit Call(VsockDevice& device) {
    std::array<int, 2> pair;
    os::checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), "socketpair");
    ours_.reset(pair[0]);
    const auto told = std::make_shared<std::promise<int>>();
    error_ = told->get_future();
    device.connect(9, Descriptor(pair[1]), [told](int error, uint32_t) { told->set_value(error); });
  }
  int error() { return error_.get(); }
  const Descriptor& socket() const { return ours_; }

 private:
  Descriptor ours_;
  std::future<int> error_;
};

void connect_by_call() {
  Guest guest;
  Call call(guest.device());
  answer_request(guest, 9);
  expect(call.error() == 0, "connected");
  guest.send(op_rw, "z");
  expect(host_reads(call.socket(), 1) == "z", "data to the host");
}

void bad_connect_line() {
  Guest guest;
  for (const char* line : {"HELLO 1\n", "CONNECT x\n", "CONNECT 12 13\n", "CONNECT 1111111111111111111111111111111111111\n"}) {
    const Descriptor host = guest.connect("");
    host_writes(host, line);
    expect(host_reads(host, 1).empty(), "the connection closes");
  }
  guest.nothing_comes();
}

void refused_by_host() {
  Guest guest;
  guest.to = 9999;
  guest.send(op_request);
  const Packet packet = guest.receive(op_rst);
  expect(packet.header.src_port == 9999 && packet.header.dst_port == guest_port, "ports of the reset");
}

void refused_by_guest() {
  Guest guest;
  const Descriptor host = guest.connect("");
  host_writes(host, "CONNECT 77\n");
  const Packet request = guest.receive(op_request);
  guest.from = 77;
  guest.to = request.header.src_port;
  guest.send(op_rst);
  expect(host_reads(host, 1).empty(), "the connection closes without OK");
}

void refused_call() {
  Guest guest;
  Call call(guest.device());
  const Packet request = guest.receive(op_request);
  guest.from = 9;
  guest.to = request.header.src_port;
  guest.send(op_rst);
  expect(call.error() == ECONNREFUSED, "the error is ECONNREFUSED");
}

void data_both_ways() {
  Guest guest;
  const Descriptor host = guest.open();
  const std::string sent = pattern(200'000);
  for (size_t at = 0; at < sent.size(); at += 50'000) guest.send(op_rw, sent.substr(at, 50'000));
  expect(host_reads(host, sent.size()) == sent, "data to the host is whole and in order");
  std::thread writer([&] { host_writes(host, pattern(300'000, 'A')); });
  const std::string got = guest.receive_data(300'000);
  writer.join();
  expect(got == pattern(300'000, 'A'), "data to the guest is whole and in order");
}

// The host does not read: the guest may send what was announced and no more; reading gives credit anew.
void credit_of_the_guest() {
  Guest guest;
  const Descriptor host = guest.open();
  const std::string chunk = pattern(64 * 1024);
  size_t sent = 0;
  uint32_t forwarded = 0;
  const auto learn = [&] {
    while (const auto packet = guest.poll()) {
      expect(packet->header.op == op_credit_update, "only credit comes");
      forwarded = packet->header.fwd_cnt;
    }
  };
  for (int idle = 0; idle < 20;) {  // as a driver: while there is credit
    learn();
    if (sent + chunk.size() - forwarded > device_space) {
      ++idle;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    guest.send(op_rw, chunk);
    sent += chunk.size();
  }
  expect(sent >= device_space && sent < 8 * size_t{device_space}, "the guest comes to a stop after " + std::to_string(sent));
  for (size_t at = 0; at < sent; at += chunk.size()) expect(host_reads(host, chunk.size()) == chunk, "data is whole");
  eventually([&] { return learn(), forwarded + device_space / 4 >= sent; }, "credit comes back");
}

void beyond_the_credit() {
  Guest guest;
  const Descriptor host = guest.open();
  bool reset = false;
  for (int i = 0; i < 100 && !reset; ++i) {
    guest.send(op_rw, pattern(64 * 1024));
    while (const auto packet = guest.poll()) reset |= packet->header.op == op_rst;
  }
  if (!reset) guest.receive(op_rst);
}

// The guest announces 1000 bytes: the device sends so many, and goes on when it is told. It asks for nothing, whatever a reader that takes
// nothing says: that would go to and fro for as long as the reader stands still.
void credit_of_the_host() {
  Guest guest;
  guest.space = 1000;
  const Descriptor host = guest.open();
  host_writes(host, pattern(2500));
  expect(guest.receive_data(1000) == pattern(2500).substr(0, 1000), "what the guest has room for");
  guest.nothing_comes();
  const uint32_t taken = std::exchange(guest.taken, 0);
  for (int i = 0; i < 3; ++i) {
    guest.send(op_credit_update);
    guest.nothing_comes();
  }
  guest.taken = 1;
  guest.send(op_credit_update);
  expect(guest.receive_data(1) == pattern(2500).substr(1000, 1), "the little there is");
  guest.nothing_comes();
  guest.taken = taken + 1;
  guest.send(op_credit_update);
  expect(guest.receive_data(1000) == pattern(2500).substr(1001, 1000), "as much again");
  guest.nothing_comes();
  guest.send(op_credit_update);
  expect(guest.receive_data(499) == pattern(2500).substr(2001), "the rest");
}

void credit_request() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(op_credit_request);
  expect(guest.receive().header.op == op_credit_update, "credit is told when asked for");
}

void host_half_closes() {
  Guest guest;
  const Descriptor host = guest.open();
  host_writes(host, "last");
  ::shutdown(host.get(), SHUT_WR);
  expect(guest.receive_data(4) == "last", "data comes before the end");
  expect(guest.receive(op_shutdown).header.flags == shutdown_send, "the end of one direction");
  guest.send(op_rw, "still here");
  expect(host_reads(host, 10) == "still here", "the other direction goes on");
  guest.send(op_shutdown, "", shutdown_send | shutdown_receive);
  guest.receive(op_rst);
  expect(host_reads(host, 1).empty(), "the host sees the end");
}

void guest_half_closes() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(op_rw, "last");
  guest.send(op_shutdown, "", shutdown_send);
  expect(host_reads(host, 10) == "last", "data, then the end");
  host_writes(host, "still here");
  expect(guest.receive_data(10) == "still here", "the other direction goes on");
}

void host_closes() {
  Guest guest;
  Descriptor host = guest.open();
  host.reset();
  expect(guest.receive(op_shutdown).header.flags == (shutdown_send | shutdown_receive), "the end of both directions");
  guest.send(op_rst);
  guest.nothing_comes();
}

void guest_resets() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(op_rst);
  expect(host_reads(host, 1).empty(), "the host sees the end");
  guest.send(op_rw, "x");
  guest.receive(op_rst);  // no such connection any more
}

// What the guest sent before it went is delivered, however slow the host's reader is.
void data_outlives(uint16_t op, uint32_t flags) {
  Guest guest;
  const Descriptor host = guest.open();
  const std::string chunk = pattern(64 * 1024);
  size_t sent = 0;
  for (; sent < 256 * 1024; sent += chunk.size()) guest.send(op_rw, chunk);
  guest.send(op, "", flags);
  std::string got;
  while (got.size() < sent) {
    const std::string part = host_reads(host, 4096);
    expect(!part.empty(), "the stream goes on until its last byte");
    got += part;
  }
  expect(host_reads(host, 1).empty(), "then it ends");
  for (size_t at = 0; at < sent; at += chunk.size()) expect(got.compare(at, chunk.size(), chunk) == 0, "data is whole");
}

size_t resident_bytes() {
  std::ifstream from("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  from >> total >> resident;
  return resident * 4096;
}

// A reader that is always a little behind: the buffer is never empty and must not grow with the stream.
void slow_reader() {
  Guest guest;
  const Descriptor host = guest.open();
  const std::string chunk = pattern(32 * 1024);
  constexpr size_t total = 96u << 20;
  uint32_t forwarded = 0;
  std::string part(chunk.size(), '\0');  // one for all: what is freed stays in AddressSanitizer's quarantine
  const size_t before = resident_bytes();
  size_t read = 0;
  for (size_t sent = 0; sent < total; sent += chunk.size()) {
    while (sent + chunk.size() - forwarded > device_space) {  // no credit: now the host reads, and no more than it must
      const auto packet = guest.poll();
      if (packet) forwarded = packet->header.fwd_cnt;
      if (packet || sent - read < chunk.size()) continue;
      std::this_thread::sleep_for(std::chrono::microseconds(200));  // the device is ahead, so that its buffer never empties
      expect(::recv(host.get(), part.data(), part.size(), MSG_WAITALL) > 0 && part == chunk, "data is whole");
      read += chunk.size();
    }
    guest.send(op_rw, chunk);
  }
  expect(resident_bytes() < before + total / 2, "the stream leaves no trace in memory");
}

void wrong_address(const std::function<void(PacketHeader&)>& change) {
  Guest guest;
  PacketHeader header = guest.blank(op_request);
  change(header);
  guest.send(header);
  guest.receive(op_rst);
}

void unknown_operation() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(uint16_t{99});
  guest.receive(op_rst);
  expect(host_reads(host, 1).empty(), "the connection is gone");
}

void request_twice() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.send(op_request);
  guest.receive(op_rst);
}

void data_before_response() {
  Guest guest;
  const Descriptor host = guest.connect("");
  host_writes(host, "CONNECT 77\n");
  const Packet request = guest.receive(op_request);
  guest.from = 77;
  guest.to = request.header.src_port;
  guest.send(op_rw, "too early");
  guest.receive(op_rst);
  expect(host_reads(host, 1).empty(), "the connection closes without OK");
}

// Packets that provoke answers while there is no room for them: the guest's queue waits, and every answer comes in the end.
void answers_held_back() {
  Guest guest(false);
  constexpr int packets = 3000;
  int sent = 0;
  PacketHeader header = guest.blank(op_rw);
  header.dst_port = 9;
  int stalled = 0;
  while (stalled < 100) {
    while (guest.front().queue(transmit_queue).take()) {
    }
    if (sent == packets || guest.front().queue(transmit_queue).room() == 0) {
      ++stalled;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    stalled = 0;
    guest.send_as_is(header, "");
    ++sent;
  }
  expect(sent < packets, "the device stops taking packets");
  guest.offer_all();
  for (int i = 0; i < sent; ++i) guest.receive(op_rst);
  guest.nothing_comes();
}

void bad_packet(uint32_t length, uint32_t told, uint16_t flags = 0) {
  Guest guest;
  PacketHeader header = guest.blank(op_rw);
  header.length = told;
  const uint64_t at = guest.front().allocate(4096);
  std::memcpy(guest.front().at(at, sizeof header).data(), &header, sizeof header);
  guest.front().queue(transmit_queue).add(std::array{RingDescriptor{at, length, flags, 0}});
  guest.front().kick(transmit_queue);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  expect(!guest.front().queue(transmit_queue).take(), "the packet does not come back");
  const Descriptor host = guest.connect("_g" + std::to_string(direct_port));
  guest.receive(op_request);  // the other queue is served still
}

void break_transmit(const Breakage& how) {
  Guest guest;
  how.make(guest.front(), transmit_queue);
  guest.front().kick(transmit_queue);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  expect(!guest.front().queue(transmit_queue).take(), "nothing comes back");
  const Descriptor host = guest.connect("_g" + std::to_string(direct_port));
  guest.receive(op_request);
  guest.front().stop_queue(transmit_queue);
  guest.front().start_queue(transmit_queue);
  const Descriptor again = guest.open();
  guest.send(op_rw, "x");
  expect(host_reads(again, 1) == "x", "the queue works again once it is set up anew");
}

// Headers too: what was checked is what is used.
void changing_packets() {
  Guest guest;
  const PacketHeader header = guest.blank(op_request);
  const auto bytes = std::as_bytes(std::span(&header, 1));
  flip_tables(guest.front(), transmit_queue, {{bytes.begin(), bytes.end()}, 0});
  guest.front().stop_queue(receive_queue);
  guest.front().start_queue(receive_queue);
  const Descriptor host = guest.connect("_g" + std::to_string(direct_port));  // has a request to tell of
  flip_tables(guest.front(), receive_queue, {{}, 256});
}

// What the driver offers to receive is looked at once there is something to tell.
void break_receive(const std::function<void(FrontEnd&, size_t)>& offer) {
  Guest guest(false);
  offer(guest.front(), receive_queue);
  guest.front().kick(receive_queue);
  guest.send(op_credit_request);  // to no connection: a reset would be the answer
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  expect(!guest.front().queue(receive_queue).take(), "nothing comes");
  guest.front().stop_queue(receive_queue);
  guest.front().start_queue(receive_queue);
  guest.offer_all();
  guest.send(op_credit_request);
  guest.receive(op_rst);
}

void bad_receive_buffer(uint32_t length, uint16_t flags) {
  break_receive([=](FrontEnd& front, size_t queue) { front.queue(queue).add(std::array{RingDescriptor{front.allocate(4096), length, flags, 0}}); });
}

// A packet's header at a place of guest memory, and its bytes 64 behind it.
uint64_t put_packet(Guest& guest, std::string_view text) {
  PacketHeader header = guest.blank(op_rw);
  header.length = static_cast<uint32_t>(text.size());
  const uint64_t at = guest.front().allocate(4096);
  std::memcpy(guest.front().at(at, sizeof header).data(), &header, sizeof header);
  std::memcpy(guest.front().at(at + 64, text.size()).data(), text.data(), text.size());
  return at;
}

// Pieces without bytes among those of a packet are nothing.
void empty_pieces() {
  Guest guest;
  const Descriptor host = guest.open();
  FrontEnd& front = guest.front();
  const uint64_t at = put_packet(guest, "abc");
  front.queue(transmit_queue)
      .add(std::array{RingDescriptor{at, 0, 0, 0}, RingDescriptor{at, sizeof(PacketHeader), 0, 0}, RingDescriptor{at, 0, 0, 0},
                      RingDescriptor{at + 64, 3, 0, 0}});
  front.kick(transmit_queue);
  expect(host_reads(host, 3) == "abc", "the data");
}

void indirect_descriptors() {
  Guest guest;
  const Descriptor host = guest.open();
  FrontEnd& front = guest.front();
  const uint64_t at = put_packet(guest, "abcdef");
  const std::array table{RingDescriptor{at, sizeof(PacketHeader), flag_next, 2}, RingDescriptor{at + 67, 3, 0, 0},
                         RingDescriptor{at + 64, 3, flag_next, 1}};
  std::memcpy(front.at(at + 256, sizeof table).data(), table.data(), sizeof table);
  front.queue(transmit_queue).add(std::array{RingDescriptor{at + 256, sizeof table, flag_indirect, 0}});
  front.kick(transmit_queue);
  expect(host_reads(host, 6) == "abcdef", "pieces in the order of the table");
}

// Two descriptors each in this process: the device's end and the host's.
void too_many_connections() {
  constexpr size_t most = 4096;
  rlimit limit{};
  os::checked(::getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
  need(limit.rlim_max > 2 * most + 100, "a hard limit above 8292 open files");
  limit.rlim_cur = limit.rlim_max;
  os::checked(::setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
  Guest guest;
  std::vector<Descriptor> hosts;
  for (uint32_t i = 0; i < most; ++i) {
    guest.from = i;
    hosts.push_back(guest.open());
  }
  guest.from = most;
  guest.send(op_request);
  expect(guest.receive(op_rst).header.dst_port == most, "one more of the guest's is reset");
  expect(Call(guest.device()).error() == EMFILE, "one more of the host's is refused");
  expect(host_reads(guest.connect("_g" + std::to_string(direct_port)), 1).empty(), "or closed");
  guest.from = 7;
  guest.send(op_rw, "x");
  expect(host_reads(hosts[7], 1) == "x", "those that stand go on");
  guest.send(op_rst);
  expect(host_reads(hosts[7], 1).empty(), "one of them ends");
  guest.from = most;
  const Descriptor next = guest.open();
  guest.send(op_rw, "y");
  expect(host_reads(next, 1) == "y", "and another may begin");
}

// Of the host's that say CONNECT and have not yet.
void too_many_lines() {
  constexpr size_t most = 256;
  Guest guest;
  std::vector<Descriptor> silent;
  for (size_t i = 0; i < most; ++i) silent.push_back(guest.connect(""));
  const Descriptor late = guest.connect("");
  char byte;
  eventually([&] { return ::recv(late.get(), &byte, 1, MSG_DONTWAIT) == 0; }, "one more is closed");
  for (const Descriptor& one : silent) {
    expect(::recv(one.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "those before it are awaited still");
  }
  host_writes(silent.back(), "CONNECT 77\n");
  answer_request(guest, 77);
  expect(host_reads(silent.back(), 3) == "OK ", "one of them says its line");
  const Descriptor next = guest.connect("");
  host_writes(next, "CONNECT 78\n");
  answer_request(guest, 78);
  expect(host_reads(next, 3) == "OK ", "and another is awaited");
}

void event_index() {
  Guest guest(true, virtio::feature_indirect_desc | virtio::feature_event_idx);
  FrontEnd& front = guest.front();
  guest.send(op_credit_request);
  guest.receive(op_rst);
  eventually([&] { return front.interrupted(receive_queue); }, "the first interrupt");
  front.queue(receive_queue).set_used_event(3);  // not before the fourth buffer
  guest.send(op_credit_request);
  guest.receive(op_rst);
  guest.send(op_credit_request);
  guest.receive(op_rst);
  expect(!front.interrupted(receive_queue), "no interrupt before its time");
  guest.send(op_credit_request);
  guest.receive(op_rst);
  eventually([&] { return front.interrupted(receive_queue); }, "the interrupt that was asked for");
}

void reset_closes() {
  Guest guest;
  const Descriptor host = guest.open();
  guest.front().disconnect();
  expect(guest.front().ended().empty(), "the front-end has gone");
  expect(host_reads(host, 1).empty(), "connections end with it");
}

void data_outlives_the_front_end() {
  Guest guest;
  const Descriptor host = guest.open();
  const std::string data = pattern(device_space);
  for (size_t sent = 0; sent < data.size(); sent += 32 * 1024) guest.send(op_rw, data.substr(sent, 32 * 1024));
  guest.front().disconnect();
  guest.front().ended();
  expect(host_reads(host, data.size()) == data, "what the guest sent before, and a socket could not take at once");
  expect(host_reads(host, 1).empty(), "and then the end");
}

// Nobody will answer: a call that waits for the driver would wait for ever.
void gone_guest() {
  Guest guest;
  const Descriptor open = guest.open();
  const Descriptor waiting = guest.connect("_g" + std::to_string(direct_port));
  guest.receive(op_request);
  const Descriptor asked = guest.connect("");
  Call before(guest.device());
  guest.receive(op_request);
  guest.front().disconnect();
  guest.front().ended();
  expect(before.error() == ECONNRESET, "the driver has gone");
  Call between(guest.device());
  const Descriptor late = guest.connect("_g" + std::to_string(direct_port));
  guest.device().guest_has_gone();
  expect(between.error() == ECONNRESET, "a call that waits for another driver");
  expect(Call(guest.device()).error() == ENOTCONN, "a call afterwards");
  for (const Descriptor* socket : {&open, &waiting, &late}) expect(host_reads(*socket, 1).empty(), "the socket is closed");
  expect(host_reads(asked, 1).empty(), "a socket that has not said its port");
  for (const auto& suffix : {std::string(), "_g" + std::to_string(direct_port)}) {
    expect(host_reads(guest.connect(suffix), 1).empty(), "a socket that comes later");
  }
}

}  // namespace

std::vector<Case> vsock_cases() {
  std::vector<Case> out{
      {"vsock: the guest connects", guest_connects},
      {"vsock: the host connects by a line", host_connects},
      {"vsock: the host connects to a direct socket", direct_socket},
      {"vsock: the host connects by a call", connect_by_call},
      {"vsock: broken lines are refused", bad_connect_line},
      {"vsock: a port of the host's without listener", refused_by_host},
      {"vsock: a port of the guest's without listener", refused_by_guest},
      {"vsock: a refused call tells ECONNREFUSED", refused_call},
      {"vsock: data both ways", data_both_ways},
      {"vsock: the guest's credit", credit_of_the_guest},
      {"vsock: data beyond the credit resets", beyond_the_credit},
      {"vsock: the host's credit", credit_of_the_host},
      {"vsock: credit is told when asked for", credit_request},
      {"vsock: the host half-closes", host_half_closes},
      {"vsock: the guest half-closes", guest_half_closes},
      {"vsock: the host closes", host_closes},
      {"vsock: the guest resets", guest_resets},
      {"vsock: data before a reset is delivered", [] { data_outlives(op_rst, 0); }},
      {"vsock: data before a shutdown is delivered", [] { data_outlives(op_shutdown, shutdown_send | shutdown_receive); }},
      {"vsock: a slow reader holds bounded memory", slow_reader},
      {"vsock: a wrong cid is reset", [] { wrong_address([](PacketHeader& h) { h.dst_cid = 77; }); }},
      {"vsock: another guest's cid is reset", [] { wrong_address([](PacketHeader& h) { h.src_cid = 4; }); }},
      {"vsock: a wrong type is reset", [] { wrong_address([](PacketHeader& h) { h.type = 2; }); }},
      {"vsock: an unknown operation resets", unknown_operation},
      {"vsock: a second request resets", request_twice},
      {"vsock: data before the response resets", data_before_response},
      {"vsock: answers without room wait", answers_held_back},
      {"vsock: packet shorter than a header", [] { bad_packet(20, 0); }},
      {"vsock: packet longer than its buffer", [] { bad_packet(100, 1000); }},
      {"vsock: a packet of no bytes", [] { bad_packet(0, 0); }},
      {"vsock: a writable packet", [] { bad_packet(100, 0, flag_write); }},
      {"vsock: pieces of no bytes", empty_pieces},
      {"vsock: receive buffer shorter than a header", [] { bad_receive_buffer(10, flag_write); }},
      {"vsock: a receive buffer of no bytes", [] { bad_receive_buffer(0, flag_write); }},
      {"vsock: a readable receive buffer", [] { bad_receive_buffer(4096, 0); }},
      {"vsock: 4097 connections", too_many_connections},
      {"vsock: 257 lines awaited", too_many_lines},
      {"vsock: indirect descriptors", indirect_descriptors},
      {"vsock: interrupts by event index", event_index},
      {"vsock: connections end with the front-end", reset_closes},
      {"vsock: data outlives the front-end", data_outlives_the_front_end},
      {"vsock: a guest that has gone refuses everybody", gone_guest},
      {"vsock: tables and packets that change while they are read", changing_packets},
  };
  for (const Breakage& how : breakages()) {
    out.push_back({std::string("vsock: ") + how.name, [&how] { break_transmit(how); }});
    out.push_back({std::string("vsock receive: ") + how.name, [&how] { break_receive(how.make); }});
  }
  return out;
}

}  // namespace tskata::testing
