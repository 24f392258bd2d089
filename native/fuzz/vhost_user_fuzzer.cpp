// Fuzzes vhost-user messages: the input is a script of messages, right ones and broken ones, with descriptors of every kind attached.
//
// The device behind is a probe that serves each ring once as it starts, touching all memory the front-end has shared: a memory table
// or ring that should have been refused shows as a crash.
#include <fuzzer/FuzzedDataProvider.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <future>

#include "fuzz/temporary.h"
#include "linux/fd_passing.h"
#include "linux/unix_socket.h"
#include "transport/vhost_user.h"

namespace {

using namespace tskata;
using os::Descriptor;

constexpr int max_steps = 60;
constexpr size_t memory_bytes = 1 << 16;
constexpr size_t page = 4096;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("vhost_user_fuzzer: %s\n", what);  // the run closes standard error for the devices' sake
  std::fflush(stdout);
  std::abort();
}

class Probe final : public virtio::Device {
 public:
  uint32_t device_id() const override { return 0; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return running_.size(); }
  uint16_t max_queue_size() const override { return 256; }
  void read_config(size_t, std::span<std::byte> out) const override { std::ranges::fill(out, std::byte{1}); }

  void start_queue(size_t index, virtio::ActiveQueue active) override {
    require(!running_.at(index), "a running queue is started");
    running_.at(index) = true;
    try {
      serve(active);
    } catch (const virtio::QueueFault&) {
      // the device would stop the queue
    }
  }
  void stop_queue(size_t index) override {
    require(running_.at(index), "a stopped queue is stopped");
    running_.at(index) = false;
  }
  void reset() override { require(running_ == std::array<bool, 2>{}, "the device is reset while a queue runs"); }

 private:
  static void serve(virtio::ActiveQueue& active) {
    virtio::Chain chain;
    for (int i = 0; i < 16 && active.queue->pop(chain); ++i) {
      size_t sum = 0;
      for (const iovec& piece : chain.readable) {
        for (size_t at = 0; at < piece.iov_len; at += 512) sum += static_cast<unsigned char*>(piece.iov_base)[at];
      }
      for (const iovec& piece : chain.writable) std::memset(piece.iov_base, static_cast<int>(sum & 0xff), piece.iov_len);
      if (active.queue->push(chain.head, 0)) active.interrupt();
    }
    uint64_t kicks;
    (void)!::read(active.kick, &kicks, sizeof kicks);
    active.queue->enable_notifications();
  }

  std::array<bool, 2> running_{};
};

struct Region {
  uint64_t guest, size, user, offset;
};

// One message as it goes over the wire; the wrong size stays wrong.
class FrontEnd {
 public:
  explicit FrontEnd(Descriptor socket) : socket_(std::move(socket)) {}

  bool send(uint32_t request, uint32_t flags, uint32_t size, const std::string& payload, const std::vector<int>& fds) {
    std::string bytes(12, '\0');
    std::memcpy(bytes.data(), &request, 4);
    std::memcpy(bytes.data() + 4, &flags, 4);
    std::memcpy(bytes.data() + 8, &size, 4);
    return send_raw(bytes + payload, fds);
  }
  template <typename T>
  bool send(uint32_t request, const T& payload, const std::vector<int>& fds = {}) {
    return send(request, 1, sizeof payload, {reinterpret_cast<const char*>(&payload), sizeof payload}, fds);
  }
  bool send_raw(const std::string& bytes, const std::vector<int>& fds) {
    std::array<char, 65536> answers;
    while (::recv(socket_.get(), answers.data(), answers.size(), MSG_DONTWAIT) > 0) {
    }
    try {
      os::send_packet(socket_.get(), std::as_bytes(std::span(bytes)), fds);
      return true;
    } catch (const std::system_error&) {
      return false;  // the server has hung up
    }
  }

 private:
  Descriptor socket_;
};

class Script {
 public:
  Script(FuzzedDataProvider& input, FrontEnd& front) : input_(input), front_(front), memory_(shared(memory_bytes)) {}

  void run() {
    for (int i = 0; i < max_steps && input_.remaining_bytes() > 0; ++i) {
      if (!step()) return;
    }
  }

 private:
  bool step() {
    switch (input_.ConsumeIntegralInRange(0, 9)) {
      case 0: return raw();
      case 1: return any_message();
      case 2: return memory_table(false);
      case 3: return memory_table(true);
      case 4: return ring_message(false);
      case 5: return descriptor_message();
      case 6: return front_.send(2, input_.ConsumeBool() ? uint64_t{1} << 30 : input_.ConsumeIntegral<uint64_t>());
      case 7: return scribble();
      default: return whole_ring();
    }
  }

  static Descriptor shared(size_t size) {
    Descriptor out(os::checked(::memfd_create("guest", MFD_CLOEXEC), "memfd_create"));
    os::checked(::ftruncate(out.get(), static_cast<off_t>(size)), "ftruncate");
    return out;
  }

  Descriptor any_descriptor() {
    switch (input_.ConsumeIntegralInRange(0, 5)) {
      case 0: return shared(page);
      case 1: return shared(0);
      case 2: return Descriptor(::open("/dev/null", O_RDWR | O_CLOEXEC));
      case 3: return Descriptor(::open("/", O_PATH | O_CLOEXEC));
      case 4: return Descriptor(::fcntl(memory_.get(), F_DUPFD_CLOEXEC, 0));
      default: return Descriptor(::eventfd(0, EFD_CLOEXEC));
    }
  }

  bool raw() { return front_.send_raw(input_.ConsumeRandomLengthString(100) + " ", {}); }

  bool any_message() {
    std::vector<Descriptor> fds;
    for (int i = input_.ConsumeIntegralInRange(0, 10); i > 0; --i) fds.push_back(any_descriptor());
    std::vector<int> numbers;
    for (const Descriptor& fd : fds) numbers.push_back(fd.get());
    const auto request = input_.ConsumeIntegralInRange<uint32_t>(0, 42);
    const auto flags = input_.ConsumeBool() ? 9u : input_.ConsumeIntegral<uint8_t>();
    const std::string payload = input_.ConsumeRandomLengthString(300);
    const uint32_t size = input_.ConsumeIntegralInRange(0, 15) == 0 ? input_.ConsumeIntegral<uint32_t>() : static_cast<uint32_t>(payload.size());
    return front_.send(request, flags, size, payload, numbers);
  }

  uint64_t number() {
    return input_.PickValueInArray<uint64_t>(
        {0, 1, page, memory_bytes, memory_bytes - page, memory_bytes + page, 1ull << 32, 1ull << 63, UINT64_MAX});
  }

  bool memory_table(bool broken) {
    struct {
      uint32_t count = 2, padding = 0;
      std::array<Region, 2> regions{{{0, memory_bytes / 2, user_base, 0}, {1 << 20, memory_bytes / 2, user_base + (1 << 20), memory_bytes / 2}}};
    } table;
    std::vector<int> fds{memory_.get(), memory_.get()};
    Descriptor other;
    if (broken) {
      for (Region& region : table.regions) {
        for (uint64_t* field : {&region.guest, &region.size, &region.user, &region.offset}) {
          if (input_.ConsumeIntegralInRange(0, 3) == 0) *field = number();
        }
      }
      if (input_.ConsumeBool()) fds[0] = (other = any_descriptor()).get();
      if (input_.ConsumeIntegralInRange(0, 7) == 0) table.count = input_.ConsumeIntegral<uint32_t>();
    }
    return front_.send(5, table, fds);
  }

  bool ring_message(bool good) {
    const uint32_t index = good ? ring_ : input_.ConsumeIntegralInRange<uint32_t>(0, 3);
    struct {
      uint32_t index, num;
    } const state{index, good ? 16 : static_cast<uint32_t>(number())};
    struct {
      uint32_t index, flags = 0;
      uint64_t descriptors = user_base, used = user_base + 1024, available = user_base + 512, log = 0;
    } address{index};
    if (!good) {
      for (uint64_t* field : {&address.descriptors, &address.used, &address.available}) {
        if (input_.ConsumeBool()) *field = user_base + number();
      }
    }
    const uint32_t which = good ? 9 : input_.PickValueInArray<uint32_t>({8, 9, 10, 11, 18});
    return which == 9 ? front_.send(9, address) : front_.send(which, state);
  }

  bool descriptor_message() {
    const Descriptor fd = any_descriptor();
    const uint64_t value = input_.ConsumeIntegralInRange<uint64_t>(0, 3) | (input_.ConsumeIntegralInRange(0, 3) == 0 ? 0x100 : 0);
    return front_.send(input_.PickValueInArray<uint32_t>({12, 13, 14}), value, {fd.get()});
  }

  // Writes a few descriptors and ring entries, as a driver would.
  bool scribble() {
    const std::string bytes = input_.ConsumeRandomLengthString(64);
    const off_t at = input_.PickValueInArray<off_t>({0, 16, 32, 512, 514, 516, 1024});
    (void)!::pwrite(memory_.get(), bytes.data(), bytes.size(), at);
    return true;
  }

  // Memory, size, address, descriptors and enable, so that a queue starts.
  bool whole_ring() {
    ring_ = input_.ConsumeBool() ? 1 : 0;
    struct {
      uint32_t index, num;
    } const size{ring_, 16}, base{ring_, 0}, enable{ring_, 1};
    const Descriptor kick(::eventfd(0, EFD_CLOEXEC));
    return memory_table(false) && front_.send(8, size) && ring_message(true) && front_.send(10, base) &&
           front_.send(13, uint64_t{ring_}, {kick.get()}) && front_.send(12, uint64_t{ring_}, {kick.get()}) && front_.send(18, enable);
  }

  static constexpr uint64_t user_base = 0x7f0000000000;
  FuzzedDataProvider& input_;
  FrontEnd& front_;
  Descriptor memory_;
  uint32_t ring_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const testing::TemporaryFolder folder;  // not static: libFuzzer leaves without destructors
  FuzzedDataProvider input(data, size);
  std::promise<std::string> ended;
  const auto server = std::make_unique<transport::VhostUserServer>(std::make_shared<Probe>(), folder / "s",
                                                                   [&](const std::string& reason) { ended.set_value(reason); });
  {
    FrontEnd front(os::connect_unix(folder / "s", SOCK_STREAM));
    Script(input, front).run();
  }
  // The front-end has gone: the server must come to its end by itself.
  ended.get_future().wait();
  return 0;
}
