// Fuzzes vsock packets: the input is a script of packets on the transmit queue and of what host processes do meanwhile.
//
// Everything a guest may say is in the input: header fields, lengths that do not fit, how a packet is cut into descriptors. The
// receive queue is served, so that answers flow, unless the script withholds its buffers.
#include <fuzzer/FuzzedDataProvider.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>

#include "devices/vsock/packet.h"
#include "devices/vsock/vsock.h"
#include "fuzz/driver_queue.h"
#include "fuzz/temporary.h"
#include "linux/unix_socket.h"

namespace {

using namespace tskata;
using namespace tskata::devices::vsock;
using testing::DriverQueue;
using testing::RingDescriptor;

constexpr uint64_t base = 0x10000;
constexpr size_t memory_bytes = 1 << 18;
constexpr uint16_t queue_size = 64;
constexpr size_t receive_buffer = 2048;
constexpr size_t receive_buffers = 32;
constexpr uint64_t receive_offset = 8192;
constexpr uint64_t transmit_offset = receive_offset + receive_buffer * receive_buffers;
constexpr uint32_t host_port = 5000;
constexpr uint32_t direct_port = 1025;
constexpr int max_steps = 200;

void require(bool holds) {
  if (!holds) std::abort();
}

class Pod {
 public:
  Pod()
      : memory_(std::make_unique<std::array<std::byte, memory_bytes>>()),
        guest_(std::make_shared<const virtio::GuestMemory>(std::vector<virtio::MemoryRegion>{{base, *memory_}})),
        listener_(os::listen_unix(folder_ / ("v_" + std::to_string(host_port)), SOCK_STREAM, 16)),
        device_(std::make_unique<VsockDevice>(VsockOptions{3, folder_ / "v", {direct_port}})),
        receive_(rings(0), base, queue_size),
        transmit_(rings(4096), base + 4096, queue_size) {
    for (auto& kick : kicks_) kick.reset(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
    for (size_t i = 0; i < receive_buffers; ++i) offer(i);
    start(0, receive_);
    start(1, transmit_);
  }

  void step(FuzzedDataProvider& input) {
    switch (input.ConsumeIntegralInRange(0, 11)) {
      case 0: return accept();
      case 1: return host_writes(input);
      case 2: return host_reads(input);
      case 3: return host_ends(input);
      case 4: return host_connects(input);
      case 5: return collect(input.ConsumeBool());
      case 6: return restart(input);
      default: return send(input);
    }
  }

  // Returns when the device has served what was there: tasks run after the events of their round, and the event queue ignores this one.
  void settle() { device_->start_queue(2, {}); }

 private:
  std::span<std::byte> rings(size_t offset) { return std::span(*memory_).subspan(offset, DriverQueue::bytes(queue_size)); }

  void start(size_t index, const DriverQueue& queue) {
    constexpr uint64_t features = virtio::feature_indirect_desc;
    device_->start_queue(index, {std::make_shared<virtio::Queue>(guest_, queue.layout(), features, bases_.at(index)), kicks_.at(index).get(), [] {}});
  }

  void kick(size_t index) {
    const uint64_t one = 1;
    require(::write(kicks_.at(index).get(), &one, sizeof one) == sizeof one);
    settle();
  }

  void offer(size_t buffer) {
    const RingDescriptor piece{base + receive_offset + buffer * receive_buffer, receive_buffer, testing::flag_write, 0};
    buffers_[receive_.add({&piece, 1})] = buffer;
  }

  // Takes what the device has sent; every packet must be one that a driver would believe.
  void collect(bool give_back) {
    settle();
    while (const auto used = receive_.take()) {
      const size_t buffer = buffers_.at(static_cast<uint16_t>(used->head));
      PacketHeader header;
      std::memcpy(&header, memory_->data() + receive_offset + buffer * receive_buffer, sizeof header);
      require(used->length >= sizeof header && used->length <= receive_buffer);
      // A reset mirrors the addresses of what it answers.
      require((header.src_cid == host_cid || header.op == op_rst) && header.op >= op_request && header.op <= op_credit_request);
      require(used->length == sizeof header + header.length);
      if (header.op == op_request) guest_port_ = header.dst_port, peer_port_ = header.src_port;
      if (give_back) offer(buffer);
    }
    if (give_back) kick(0);
  }

  PacketHeader header(FuzzedDataProvider& input) {
    PacketHeader out{};
    out.src_cid = input.ConsumeIntegralInRange(0, 15) == 0 ? input.ConsumeIntegral<uint64_t>() : 3;
    out.dst_cid = input.ConsumeIntegralInRange(0, 15) == 0 ? input.ConsumeIntegral<uint64_t>() : host_cid;
    out.type = input.ConsumeIntegralInRange(0, 15) == 0 ? input.ConsumeIntegral<uint16_t>() : type_stream;
    const bool answer = input.ConsumeBool();  // to the host's last request
    out.src_port = answer ? guest_port_ : input.ConsumeIntegralInRange<uint32_t>(1, 4);
    out.dst_port = answer ? peer_port_ : input.PickValueInArray({host_port, host_port, host_port, 7u});
    out.op = input.ConsumeIntegralInRange<uint16_t>(0, 9);
    out.flags = input.ConsumeIntegralInRange<uint32_t>(0, 4);
    out.buf_alloc = input.PickValueInArray({0u, 1u, 1000u, 65536u, 0xffffffffu});
    out.fwd_cnt = input.PickValueInArray({0u, 1u, 1000u, 0x7fffffffu, 0xffffffffu});
    return out;
  }

  void send(FuzzedDataProvider& input) {
    while (transmit_.take()) {
    }
    if (transmit_.room() < 8) return;
    PacketHeader head = header(input);
    const auto payload = static_cast<uint32_t>(input.PickValueInArray({0, 0, 1, 100, 4096, 60000}));
    const bool honest = input.ConsumeIntegralInRange(0, 15) != 0;
    head.length = honest ? payload : input.ConsumeIntegral<uint32_t>();
    std::memcpy(memory_->data() + transmit_offset, &head, sizeof head);
    const auto total = static_cast<uint32_t>(honest ? sizeof head + payload : input.ConsumeIntegralInRange<uint32_t>(0, 70000));
    std::vector<RingDescriptor> pieces;
    uint32_t done = 0;
    while (done < total && pieces.size() < 5) {
      const uint32_t length = pieces.size() == 4 ? total - done : input.ConsumeIntegralInRange<uint32_t>(1, total - done);
      pieces.push_back({base + transmit_offset + done, length, 0, 0});
      done += length;
    }
    if (!honest && input.ConsumeBool()) pieces.push_back({input.ConsumeIntegral<uint64_t>(), input.ConsumeIntegral<uint32_t>(), 0, 0});
    if (pieces.empty()) return;
    transmit_.add(pieces);
    kick(1);
  }

  // As when the driver is reset or the transport stops and starts the rings.
  void restart(FuzzedDataProvider& input) {
    const size_t index = input.ConsumeBool() ? 1 : 0;
    device_->stop_queue(index);
    DriverQueue& queue = index == 0 ? receive_ : transmit_;
    const size_t offset = index == 0 ? 0 : 4096;
    std::ranges::fill(rings(offset), std::byte{0});
    queue = DriverQueue(rings(offset), base + offset, queue_size);
    if (index == 0) {
      buffers_.clear();
      for (size_t i = 0; i < receive_buffers; ++i) offer(i);
    }
    if (input.ConsumeBool()) {
      device_->stop_queue(1 - index);
      device_->reset();
      start(1 - index, index == 0 ? transmit_ : receive_, true);
    }
    start(index, queue);
  }

  // The other ring goes on where it was.
  void start(size_t index, const DriverQueue& queue, bool go_on) {
    bases_.at(index) = go_on ? queue.used_index() : uint16_t{0};
    start(index, queue);
    bases_.at(index) = 0;
  }

  void accept() {
    settle();
    os::Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) hosts_.push_back(std::move(socket));
  }

  os::Descriptor* pick(FuzzedDataProvider& input) {
    return hosts_.empty() ? nullptr : &hosts_[input.ConsumeIntegralInRange<size_t>(0, hosts_.size() - 1)];
  }

  void host_writes(FuzzedDataProvider& input) {
    const std::vector<char> bytes(input.PickValueInArray<size_t>({1, 100, 5000, 200000}));
    if (const auto* socket = pick(input)) (void)!::send(socket->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    settle();
  }

  void host_reads(FuzzedDataProvider& input) {
    std::vector<char> bytes(input.PickValueInArray<size_t>({1, 100, 5000, 300000}));
    if (const auto* socket = pick(input)) (void)!::recv(socket->get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    settle();
  }

  void host_ends(FuzzedDataProvider& input) {
    const int how = input.ConsumeIntegralInRange(0, 3);
    auto* const socket = pick(input);
    if (socket == nullptr) return;
    if (how < 3) ::shutdown(socket->get(), how);
    else hosts_.erase(hosts_.begin() + (socket - hosts_.data()));
    settle();
  }

  void host_connects(FuzzedDataProvider& input) {
    if (hosts_.size() > 32) return;
    const bool direct = input.ConsumeBool();
    os::Descriptor socket = os::connect_unix(folder_ / (direct ? "v_g" + std::to_string(direct_port) : "v"), SOCK_STREAM | SOCK_NONBLOCK);
    const std::string line = input.ConsumeBool() ? "CONNECT 9\n" : input.ConsumeRandomLengthString(40);
    if (!direct) (void)!::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL);
    hosts_.push_back(std::move(socket));
    settle();
    collect(true);
  }

  testing::TemporaryFolder folder_;
  std::unique_ptr<std::array<std::byte, memory_bytes>> memory_;
  std::shared_ptr<const virtio::GuestMemory> guest_;
  os::Descriptor listener_;
  std::unique_ptr<VsockDevice> device_;
  DriverQueue receive_;
  DriverQueue transmit_;
  std::array<os::Descriptor, 2> kicks_;
  std::array<uint16_t, 2> bases_{};
  std::map<uint16_t, size_t> buffers_;
  std::vector<os::Descriptor> hosts_;
  uint32_t guest_port_ = 0;
  uint32_t peer_port_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  Pod pod;
  for (int i = 0; i < max_steps && input.remaining_bytes() > 0; ++i) pod.step(input);
  pod.settle();
  return 0;
}
