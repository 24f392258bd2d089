// Fuzzes a virtio-mmio slot with a real device behind it (rng, balloon, blk, fs or vsock; the first number chooses, and whether it comes
// late): a script of register accesses of any width and offset, mixed with what a driver does, so that queues really run.
//
// What must hold whatever the script says: nothing outside guest memory is touched (sanitizers), every access returns, nothing is thrown,
// what is no register reads zero, and after a reset the device is as new and leaves the rings alone.
#include <fuzzer/FuzzedDataProvider.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "devices/balloon/balloon.h"
#include "devices/blk/blk.h"
#include "devices/fs/fs.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"
#include "fuzz/mmio_driver.h"
#include "fuzz/temporary.h"

namespace {

using namespace tskata;
using testing::MmioGuest;
namespace mmio = testing::mmio;

constexpr int max_steps = 80;
constexpr uint32_t max_queues = 4;
constexpr size_t memory_bytes = 1 << 18;
constexpr uint64_t data = MmioGuest::base + max_queues * MmioGuest::ring_stride;
constexpr uint32_t known_status = 1 | 2 | 4 | 8 | 64 | 128;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("mmio_fuzzer: %s\n", what);  // standard error is closed for the devices' lines about stopped queues
  std::fflush(stdout);
  std::abort();
}

std::shared_ptr<virtio::Device> make_device(int which, const testing::TemporaryFolder& folder) {
  switch (which) {
    case 0: return std::make_shared<devices::rng::RngDevice>();
    case 1: return std::make_shared<devices::balloon::BalloonDevice>();
    case 2: {
      os::Descriptor disk(os::checked(::memfd_create("disk", MFD_CLOEXEC), "memfd_create"));
      os::checked(::ftruncate(disk.get(), 1 << 16), "ftruncate");
      return std::make_shared<devices::blk::BlkDevice>(devices::blk::BlkOptions{std::move(disk), false, "fuzz", 2});
    }
    case 3: {
      devices::fs::FsOptions options;
      options.root = folder.path();
      options.tag = "fuzz";
      options.threads = 2;
      return std::make_shared<devices::fs::FsDevice>(std::move(options));
    }
    default: return std::make_shared<devices::vsock::VsockDevice>(devices::vsock::VsockOptions{3, folder / "v", {}});
  }
}

class Script {
 public:
  Script(FuzzedDataProvider& input, const testing::TemporaryFolder& folder)
      : input_(input), device_(make_device(input.ConsumeIntegralInRange(0, 4), folder)) {
    if (input_.ConsumeBool()) attach();
  }

  void run() {
    for (int i = 0; i < max_steps && input_.remaining_bytes() > 0; ++i) {
      step();
      check();
    }
    attach();
    reset();
  }

 private:
  void step() {
    switch (input_.ConsumeIntegralInRange(0, 15)) {
      case 0: return any_read();
      case 1:
      case 2: return any_write();
      case 3: return register_write();
      case 4: return reset();
      case 5: return attach();
      case 6: return configuration();
      case 7:
      case 8: return start();
      case 9: return (void)set_up(false);
      case 10: return kick();
      default: return buffer();
    }
  }

  void check() {
    const auto status = guest_.read(mmio::status);
    require((status & ~known_status) == 0, "status bits that there are not");
    require((status & mmio::driver_ok) == 0 || (status & mmio::features_ok) != 0, "running without features");
    require(attached_ || status == 0, "a placeholder has no status");
    require((guest_.read(mmio::interrupt_status) & ~3u) == 0, "interrupts that there are not");
  }

  void attach() {
    if (!std::exchange(attached_, true)) guest_.slot().attach(device_);
  }

  uint64_t offset() {
    return input_.ConsumeIntegralInRange(0, 7) == 0 ? input_.ConsumeIntegral<uint64_t>() : input_.ConsumeIntegralInRange<uint64_t>(0, 0x140);
  }

  void any_read() {
    std::array<std::byte, 8> bytes;
    bytes.fill(std::byte{0xee});
    const uint64_t at = offset();
    const size_t width = input_.ConsumeIntegralInRange<size_t>(0, 8);
    guest_.slot().read(at, std::span(bytes).first(width));
    const bool is_register = at < mmio::configuration && width == 4 && at % 4 == 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i >= width) require(bytes[i] == std::byte{0xee}, "more is read than asked for");
      else if (at < mmio::configuration && !is_register) require(bytes[i] == std::byte{0}, "what is no register reads zero");
    }
  }

  void any_write() {
    std::array<std::byte, 8> bytes{};
    const uint64_t at = offset();
    const size_t width = input_.ConsumeIntegralInRange<size_t>(0, 8);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(input_.ConsumeIntegral<uint8_t>());
    guest_.slot().write(at, std::span<const std::byte>(bytes).first(width));
  }

  // A register that there is, with a value that may mean something.
  void register_write() {
    const uint64_t at = input_.PickValueInArray<uint64_t>(
        {0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x44, 0x50, 0x64, 0x70, 0x70, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4});
    const auto value = input_.ConsumeBool() ? input_.ConsumeIntegralInRange<uint32_t>(0, 16) : input_.ConsumeIntegral<uint32_t>();
    guest_.write(at, input_.ConsumeBool() ? value : static_cast<uint32_t>(data) + (value & 0xffff));
  }

  void configuration() {
    const uint64_t at = mmio::configuration + input_.ConsumeIntegralInRange<uint64_t>(0, 64);
    guest_.write<uint64_t>(at, input_.ConsumeIntegral<uint64_t>());
    (void)guest_.read<uint64_t>(at);
    if (auto* const balloon = dynamic_cast<devices::balloon::BalloonDevice*>(device_.get())) balloon->set_target(input_.ConsumeIntegral<uint16_t>());
  }

  uint32_t pick_queue() { return input_.ConsumeIntegralInRange<uint32_t>(0, max_queues - 1); }

  bool set_up(bool whole) {
    const uint32_t index = pick_queue();
    queues_[index] = guest_.make_queue(index);
    virtio::QueueLayout layout = queues_[index]->layout();
    if (!whole) {
      for (uint64_t* field : {&layout.descriptors, &layout.available, &layout.used}) {
        if (input_.ConsumeBool())
          *field =
              input_.ConsumeBool() ? input_.ConsumeIntegral<uint64_t>() : MmioGuest::base + input_.ConsumeIntegral<uint32_t>() % (memory_bytes + 64);
      }
      layout.size = input_.ConsumeIntegral<uint16_t>();
    }
    guest_.describe_queue(index, layout);
    guest_.write(mmio::queue_ready, 1u);
    return guest_.read(mmio::queue_ready) == 1;
  }

  // What a driver does, from the reset to DRIVER_OK.
  void start() {
    const uint64_t offered = guest_.offered();
    if (!guest_.negotiate((offered & input_.ConsumeIntegral<uint64_t>()) | virtio::feature_version_1)) {
      require(!attached_, "features that are offered are accepted");
      return;
    }
    for (int i = input_.ConsumeIntegralInRange(1, 3); i > 0; --i) (void)set_up(input_.ConsumeIntegralInRange(0, 7) != 0);
    guest_.driver_ok();
  }

  void kick() {
    const std::vector<int> kicks = guest_.slot().notifiers();
    const uint64_t one = 1;
    if (!kicks.empty()) (void)!::write(kicks[pick_queue() % kicks.size()], &one, sizeof one);
  }

  void buffer() {
    const uint32_t index = pick_queue();
    auto& queue = queues_[index];
    if (!queue || queue->room() < 4) return;
    std::vector<testing::RingDescriptor> pieces;
    for (int i = input_.ConsumeIntegralInRange(1, 4); i > 0; --i) {
      const uint64_t at = input_.ConsumeIntegralInRange(0, 15) == 0 ? input_.ConsumeIntegral<uint64_t>() : data + input_.ConsumeIntegral<uint16_t>();
      pieces.push_back(
          {at, input_.ConsumeIntegralInRange<uint32_t>(0, 5000), static_cast<uint16_t>(input_.ConsumeBool() ? testing::flag_write : 0), 0});
    }
    const std::string bytes = input_.ConsumeRandomLengthString(64);
    std::memcpy(guest_.at(data, bytes.size()).data(), bytes.data(), bytes.size());
    queue->add(pieces);
    guest_.write(mmio::queue_notify, index);
    if (input_.ConsumeBool()) std::this_thread::yield();
    while (queue->take()) {
    }
  }

  void reset() {
    guest_.write(mmio::status, 0u);
    require(guest_.read(mmio::status) == 0, "a reset leaves no status");
    std::array<uint16_t, max_queues> used{};
    for (uint32_t i = 0; i < max_queues; ++i) used[i] = queues_[i] ? queues_[i]->used_index() : uint16_t{0};
    std::this_thread::yield();
    for (uint32_t i = 0; i < max_queues; ++i) require(!queues_[i] || queues_[i]->used_index() == used[i], "no buffer comes back after a reset");
    for (uint32_t i = 0; i < max_queues; ++i) {
      guest_.write(mmio::queue_select, i);
      require(guest_.read(mmio::queue_ready) == 0, "no queue is ready after a reset");
    }
    queues_ = {};
  }

  FuzzedDataProvider& input_;
  std::shared_ptr<virtio::Device> device_;
  MmioGuest guest_{memory_bytes};  // goes first: the device outlives its slot
  bool attached_ = false;
  std::array<std::optional<testing::DriverQueue>, max_queues> queues_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const testing::TemporaryFolder folder;
  FuzzedDataProvider input(bytes, size);
  Script(input, folder).run();
  return 0;
}
