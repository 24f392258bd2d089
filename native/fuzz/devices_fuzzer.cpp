// Fuzzes the devices with a thread a queue: the first number chooses one of rng, pmem, balloon, blk and net; the rest is a script of what a
// driver puts in its queues and of configuration, features, stops and resets meanwhile. Or the serial port: a script of port accesses.
//
// Buffers are of about the right form most of the time (a header that the device knows, room for the answer), cut into descriptors at
// will; one in some is anything at all. What must hold whatever the script says: nothing outside guest memory is touched (sanitizers),
// every buffer comes back at most once with no more bytes than it has room, the disk keeps its size, and stopping a queue returns.
#include <fuzzer/FuzzedDataProvider.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <thread>

#include "devices/balloon/balloon.h"
#include "devices/blk/blk.h"
#include "devices/console/uart.h"
#include "devices/net/net.h"
#include "devices/pmem/pmem.h"
#include "devices/rng/rng.h"
#include "fuzz/driver_queue.h"

namespace {

using namespace tskata;
using os::Descriptor;
using testing::DriverQueue;
using testing::RingDescriptor;

constexpr uint64_t base = 0x10000;
constexpr size_t memory_bytes = 1 << 19;
constexpr uint16_t queue_size = 32;
constexpr size_t ring_stride = 4096;
constexpr size_t data_offset = 8 * ring_stride;  // beyond the rings of all queues
constexpr off_t disk_bytes = 1 << 18;
constexpr int max_steps = 60;
constexpr auto patience = std::chrono::microseconds(1500);

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("devices_fuzzer: %s\n", what);  // standard error is closed for the devices' lines about stopped queues
  std::fflush(stdout);
  std::abort();
}

// Guest memory as mmap gives it: the balloon gives whole pages back.
class Memory {
 public:
  Memory() {
    void* const mapped = ::mmap(nullptr, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(mapped != MAP_FAILED, "mmap");
    bytes = {static_cast<std::byte*>(mapped), memory_bytes};
  }
  ~Memory() { ::munmap(bytes.data(), bytes.size()); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::span<std::byte> bytes;
};

Descriptor disk() {
  Descriptor out(os::checked(::memfd_create("disk", MFD_CLOEXEC), "memfd_create"));
  os::checked(::ftruncate(out.get(), disk_bytes), "ftruncate");
  return out;
}

class Machine {
 public:
  Machine(int which, FuzzedDataProvider& input) {
    make_device(which, input.ConsumeBool());
    guest_ = std::make_shared<const virtio::GuestMemory>(std::vector<virtio::MemoryRegion>{{base, memory_.bytes}});
    const uint64_t offered = device_->features();
    features_ = offered & (input.ConsumeBool() ? UINT64_MAX : input.ConsumeIntegral<uint64_t>());
    device_->set_features(features_);
    device_->on_config_change([] {});
    require(device_->queue_count() <= 8, "rings have room");
    for (size_t i = 0; i < device_->queue_count(); ++i) {
      kicks_.emplace_back(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
      queues_.emplace_back(rings(i), base + i * ring_stride, queue_size);
      room_.emplace_back();
      start(i);
    }
  }

  void step(FuzzedDataProvider& input) {
    switch (input.ConsumeIntegralInRange(0, 15)) {
      case 0: return configure(input);
      case 1: return restart(input);
      case 2: return anything(input);
      case 3: return peer(input);
      default: return request(input);
    }
  }

  void end() {
    for (size_t i = 0; i < queues_.size(); ++i) {
      device_->stop_queue(i);
      collect(i);
    }
    device_->reset();
    if (!disk_) return;
    struct stat status {};
    os::checked(::fstat(disk_.get(), &status), "fstat");
    require(status.st_size == disk_bytes, "the disk keeps its size");
  }

 private:
  void make_device(int which, bool ring) {
    namespace all = tskata::devices;
    which_ = which;
    switch (which) {
      case 0: device_ = std::make_unique<all::rng::RngDevice>(); return;
      case 1: device_ = std::make_unique<all::pmem::PmemDevice>(all::pmem::PmemOptions{1ull << 32, 1 << 21, disk()}); return;
      case 2: device_ = std::make_unique<all::balloon::BalloonDevice>(); return;
      case 3:
      case 4: {
        disk_ = disk();
        Descriptor file(os::checked(::fcntl(disk_.get(), F_DUPFD_CLOEXEC, 0), "dup"));
        device_ = std::make_unique<all::blk::BlkDevice>(all::blk::BlkOptions{std::move(file), which == 4, "fuzz", 2, ring});
        return;
      }
      default: {
        std::vector<Descriptor> taps;
        for (int i = 4; i < which; ++i) {  // one pair of queues, or two
          std::array<int, 2> ends;
          os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), "socketpair");
          taps.emplace_back(ends[0]);
          peers_.emplace_back(ends[1]);
        }
        device_ = std::make_unique<all::net::NetDevice>(all::net::NetOptions{std::move(taps), {2, 0, 0, 0, 0, 1}, 1500});
      }
    }
  }

  std::span<std::byte> rings(size_t index) { return memory_.bytes.subspan(index * ring_stride, DriverQueue::bytes(queue_size)); }

  void start(size_t index) {
    auto queue = std::make_shared<virtio::Queue>(guest_, queues_[index].layout(), features_, uint16_t{0});
    device_->start_queue(index, {std::move(queue), kicks_[index].get(), [] {}});
  }

  size_t pick_queue(FuzzedDataProvider& input) const { return input.ConsumeIntegralInRange<size_t>(0, queues_.size() - 1); }

  // What the device has given back so far.
  void collect(size_t index) {
    while (const auto used = queues_[index].take()) {
      const auto found = room_[index].find(used->head);
      if (wild_.contains(index)) continue;  // the script has written over the rings: no promise
      require(found != room_[index].end(), "a buffer that nobody offered");
      require(used->length <= found->second, "more bytes than there is room");
      room_[index].erase(found);
    }
  }

  // Most buffers come back at once; some never do (receive buffers, those of a stopped queue).
  void settle(size_t index) {
    const auto end = std::chrono::steady_clock::now() + patience;
    const bool waits = which_ >= 5 && index % 2 == 0 && index < 4;
    do {
      collect(index);
      if (waits || room_[index].empty() || wild_.contains(index)) return;
      std::this_thread::yield();
    } while (std::chrono::steady_clock::now() < end);
    wild_.insert(index);  // it has stopped: no more waiting for it
  }

  void kick(size_t index) {
    ::eventfd_write(kicks_[index].get(), 1);
    settle(index);
  }

  std::vector<std::byte> header(FuzzedDataProvider& input, size_t index) {
    std::vector<std::byte> out;
    const auto put = [&](auto value) {
      const auto bytes = std::as_bytes(std::span(&value, 1));
      out.insert(out.end(), bytes.begin(), bytes.end());
    };
    switch (which_) {
      case 0: break;
      case 1: put(input.ConsumeIntegralInRange<uint32_t>(0, 1)); break;
      case 2:
        if (index > 1) break;
        for (int i = input.ConsumeIntegralInRange(0, 20); i > 0; --i) put(input.ConsumeIntegralInRange<uint32_t>(0x20, 0x9f));
        break;
      case 3:
      case 4: put_blk(input, put); break;
      default: put_net(input, index, put);
    }
    return out;
  }

  template <typename Put>
  void put_blk(FuzzedDataProvider& input, Put&& put) {
    const uint32_t type = input.PickValueInArray<uint32_t>({0, 0, 1, 1, 4, 8, 11, 13, 99});
    const auto sector = [&] {
      return input.ConsumeIntegralInRange(0, 7) == 0 ? input.ConsumeIntegral<uint64_t>() : input.ConsumeIntegralInRange<uint64_t>(0, 513);
    };
    put(devices::blk::RequestHeader{type, 0, sector()});
    if (type == 1) {
      for (int i = input.PickValueInArray({0, 64, 64, 128, 640, 65}); i > 0; --i) put(uint64_t{0x4141414141414141});
    }
    if (type != 11 && type != 13) return;
    for (int i = input.ConsumeIntegralInRange(0, 3); i > 0; --i) {
      put(devices::blk::Segment{sector(), input.ConsumeIntegralInRange<uint32_t>(0, 600), input.ConsumeIntegralInRange<uint32_t>(0, 3)});
    }
  }

  template <typename Put>
  void put_net(FuzzedDataProvider& input, size_t index, Put&& put) {
    if (index + 1 == queues_.size() && index >= 2) return put(std::array<uint8_t, 4>{4, 0, input.ConsumeIntegralInRange<uint8_t>(0, 3), 0});
    if (index % 2 == 0) return;
    devices::net::PacketHeader out{};
    out.flags = input.ConsumeIntegralInRange<uint8_t>(0, 3);
    out.gso_type = input.PickValueInArray<uint8_t>({0, 0, 1, 3, 4, 0x81, 7});
    out.gso_size = input.ConsumeIntegral<uint16_t>();
    out.csum_start = input.ConsumeIntegralInRange<uint16_t>(0, 200);
    out.csum_offset = input.ConsumeIntegralInRange<uint16_t>(0, 200);
    put(out);
    for (int i = input.PickValueInArray({1, 2, 10, 200, 8000, 8300}); i > 0; --i) put(uint64_t{i % 251u});
  }

  size_t answer_bytes(FuzzedDataProvider& input, size_t index) const {
    switch (which_) {
      case 0: return input.PickValueInArray<size_t>({1, 64, 70'000});
      case 1: return 4;
      case 2: return index > 1 ? input.PickValueInArray<size_t>({4096, 10'000, 65536}) : 0;
      case 3:
      case 4: return input.PickValueInArray<size_t>({1, 1, 21, 513, 513, 4097, 100});
      default: return index % 2 != 0 ? 0 : index + 1 == queues_.size() && index >= 2 ? 1 : input.PickValueInArray<size_t>({12, 100, 2048, 65562});
    }
  }

  // Cuts a range into descriptors.
  void cut(FuzzedDataProvider& input, uint64_t at, size_t length, uint16_t flags, std::vector<RingDescriptor>& out) {
    for (int i = 0; i < 4 && length > 0; ++i) {
      const size_t part = i == 3 || input.ConsumeBool() ? length : input.ConsumeIntegralInRange<size_t>(0, length);
      out.push_back({at, static_cast<uint32_t>(part), flags, 0});
      at += part;
      length -= part;
    }
    if (length > 0) out.push_back({at, static_cast<uint32_t>(length), flags, 0});
  }

  void request(FuzzedDataProvider& input) {
    const size_t index = pick_queue(input);
    collect(index);
    if (queues_[index].room() < 16) return;
    std::vector<std::byte> out = header(input, index);
    if (input.ConsumeIntegralInRange(0, 15) == 0) out.resize(input.ConsumeIntegralInRange<size_t>(0, out.size()));
    if (out.size() > 70'000) out.resize(70'000);
    std::ranges::copy(out, memory_.bytes.subspan(data_offset).begin());
    size_t room = answer_bytes(input, index);
    if (input.ConsumeIntegralInRange(0, 15) == 0) room = input.ConsumeIntegralInRange<size_t>(0, 100'000);
    std::vector<RingDescriptor> pieces;
    cut(input, base + data_offset, out.size(), 0, pieces);
    cut(input, base + data_offset + 100'000, room, testing::flag_write, pieces);
    if (pieces.empty()) return;
    room_[index][queues_[index].add(pieces)] = room;
    kick(index);
  }

  // Descriptors, heads and indices that mean nothing.
  void anything(FuzzedDataProvider& input) {
    const size_t index = pick_queue(input);
    wild_.insert(index);
    for (int i = input.ConsumeIntegralInRange(1, 4); i > 0; --i) {
      const RingDescriptor one{
          input.ConsumeBool() ? base + input.ConsumeIntegralInRange<uint64_t>(0, memory_bytes) : input.ConsumeIntegral<uint64_t>(),
          input.ConsumeBool() ? input.ConsumeIntegral<uint16_t>() : input.ConsumeIntegral<uint32_t>(), input.ConsumeIntegralInRange<uint16_t>(0, 7),
          input.ConsumeIntegralInRange<uint16_t>(0, queue_size)};
      queues_[index].set_descriptor(input.ConsumeIntegralInRange<uint16_t>(0, queue_size - 1), one);
    }
    if (input.ConsumeBool()) queues_[index].publish(input.ConsumeIntegralInRange<uint16_t>(0, queue_size));
    else queues_[index].set_available_index(input.ConsumeIntegral<uint16_t>());
    ::eventfd_write(kicks_[index].get(), 1);
  }

  void configure(FuzzedDataProvider& input) {
    const size_t offset = input.ConsumeBool() ? input.ConsumeIntegralInRange<size_t>(0, 80) : input.ConsumeIntegral<size_t>();
    std::array<std::byte, 16> bytes{};
    const auto part = std::span(bytes).first(input.ConsumeIntegralInRange<size_t>(0, bytes.size()));
    if (input.ConsumeBool()) device_->write_config(offset, part);
    device_->read_config(offset, part);
    if (auto* const balloon = dynamic_cast<devices::balloon::BalloonDevice*>(device_.get())) balloon->set_target(input.ConsumeIntegral<uint32_t>());
  }

  void restart(FuzzedDataProvider& input) {
    const bool all = input.ConsumeBool();
    const size_t one = pick_queue(input);
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (all || i == one) device_->stop_queue(i);
    }
    if (all) {
      device_->reset();
      features_ = device_->features() & input.ConsumeIntegral<uint64_t>();
      device_->set_features(features_);
    }
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (!all && i != one) continue;
      std::ranges::fill(rings(i), std::byte{0});
      queues_[i] = DriverQueue(rings(i), base + i * ring_stride, queue_size);
      room_[i].clear();
      wild_.erase(i);
      start(i);
    }
  }

  // What the host does on the tap.
  void peer(FuzzedDataProvider& input) {
    if (peers_.empty()) return;
    const Descriptor& host = peers_[input.ConsumeIntegralInRange<size_t>(0, peers_.size() - 1)];
    std::vector<char> bytes(input.PickValueInArray<size_t>({0, 1, 12, 60, 1514, 9000, 65562, 65600}));
    if (input.ConsumeBool()) (void)!::send(host.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    bytes.resize(70'000);
    while (::recv(host.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
  }

  Memory memory_;
  std::shared_ptr<const virtio::GuestMemory> guest_;
  int which_ = 0;
  uint64_t features_ = 0;
  Descriptor disk_;
  std::vector<Descriptor> peers_;
  std::vector<Descriptor> kicks_;
  std::unique_ptr<virtio::Device> device_;
  std::vector<DriverQueue> queues_;
  std::vector<std::map<uint32_t, size_t>> room_;  // heads in the device's hands, with the bytes they have room for
  std::set<size_t> wild_;                         // queues that the script has broken
};

// A port whose interrupt is a level: told only when it changes, and never on where the guest has enabled none.
void serial_port(FuzzedDataProvider& input) {
  bool line = false;
  devices::console::Uart uart([](uint8_t) {},
                              [&](bool level) {
                                require(level != line, "only changes are told");
                                line = level;
                              });
  while (input.remaining_bytes() > 0) {
    const unsigned offset = input.ConsumeIntegralInRange(0u, 9u);
    if (input.ConsumeBool()) uart.write(offset, input.ConsumeIntegral<uint8_t>());
    else uart.read(offset);
  }
  uart.write(3, 0);
  uart.write(1, 0);
  require(!line, "no interrupt that is not enabled");
  require((uart.read(5) & 0x60) == 0x60, "always ready to send");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  const int which = input.ConsumeIntegralInRange(0, 7);
  if (which == 7) {
    serial_port(input);
    return 0;
  }
  Machine machine(which, input);
  for (int i = 0; i < max_steps && input.remaining_bytes() > 0; ++i) machine.step(input);
  machine.end();
  return 0;
}
