// Fuzzes what stands behind the vCPU loop, without /dev/kvm: the input is a script of exit records of KVM_RUN, for a machine of a serial
// port, a reset port and device slots (one of them empty until the script fills it).
//
// What must hold whatever a record says: nothing is thrown, only the record's own bytes are touched (sanitizers), an access of a size that
// there is never ends the machine, nobody's addresses read all ones, only the pulse on the reset line resets, and the counters stay small.
#include <fuzzer/FuzzedDataProvider.h>
#include <linux/kvm.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "devices/balloon/balloon.h"
#include "devices/rng/rng.h"
#include "fuzz/mmio_driver.h"
#include "kvm/exits.h"
#include "kvm/platform.h"

namespace {

using namespace tskata;

constexpr int max_steps = 100;
constexpr uint16_t serial = 0x3f8;
constexpr uint16_t reset = 0x64;
constexpr uint64_t slots = 0xd000'0000;
constexpr uint64_t slot_count = 3;
constexpr size_t record_bytes = 3 * 4096;  // kvm_run, string data, coalesced accesses
constexpr size_t data_offset = 4096;

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("kvm_exit_fuzzer: %s\n", what);
  std::fflush(stdout);
  std::abort();
}

class Script {
 public:
  explicit Script(FuzzedDataProvider& input) : input_(input) {
    guests_[0].slot().attach(std::make_shared<devices::rng::RngDevice>());
    guests_[1].slot().attach(std::make_shared<devices::balloon::BalloonDevice>());
    ports_.add(kvm::serial_port(serial, uart_));
    ports_.add(kvm::reset_port(reset, [this] { reset_ = true; }));
    for (uint64_t i = 0; i < slot_count; ++i) memory_.add(kvm::device_slot(slots + i * transport::VirtioMmio::size, guests_[i].slot()));
    ports_.close();
    memory_.close();
  }

  void run() {
    for (int i = 0; i < max_steps && input_.remaining_bytes() > 0; ++i) step();
    require(exits_.counters().by_cause().size() <= kvm::ExitCounters::max_causes + 2, "counters without a bound");
  }

 private:
  void step() {
    std::ranges::fill(record_, std::byte{0});
    switch (input_.ConsumeIntegralInRange(0, 9)) {
      case 0: return anything();
      case 1: return other();
      case 2: return attach();
      case 3:
      case 4:
      case 5: return port();
      default: return access();
    }
  }

  kvm_run& record() { return *reinterpret_cast<kvm_run*>(record_.data()); }

  // Nothing of it need make sense.
  void anything() {
    const std::string bytes = input_.ConsumeRandomLengthString(128);
    std::memcpy(record_.data(), bytes.data(), bytes.size());
    if (input_.ConsumeBool()) record().exit_reason = input_.PickValueInArray<uint32_t>({KVM_EXIT_IO, KVM_EXIT_MMIO});
    const size_t length = input_.ConsumeIntegralInRange(0, 7) == 0 ? input_.ConsumeIntegralInRange<size_t>(0, record_bytes) : record_bytes;
    (void)exits_.handle(std::span(record_).first(length));
  }

  // Every reason but the accesses and the interrupted run is the end.
  void other() {
    record().exit_reason = input_.ConsumeIntegralInRange<uint32_t>(0, 50);
    if (record().exit_reason == KVM_EXIT_IO || record().exit_reason == KVM_EXIT_MMIO) return;
    require(exits_.handle(record_).has_value() == (record().exit_reason != KVM_EXIT_INTR), "an exit that is no access");
  }

  void attach() {
    if (!std::exchange(attached_, true)) guests_[2].slot().attach(std::make_shared<devices::rng::RngDevice>());
  }

  void port() {
    auto& run = record();
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = input_.ConsumeBool() ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
    run.io.size = input_.PickValueInArray<uint8_t>({1, 1, 2, 4});
    run.io.count = input_.ConsumeBool() ? 1 : input_.ConsumeIntegralInRange<uint32_t>(0, 4096 / run.io.size);
    run.io.data_offset = data_offset;
    run.io.port = input_.ConsumeBool() ? input_.ConsumeIntegral<uint16_t>()
                                       : static_cast<uint16_t>(input_.PickValueInArray({serial, reset}) + input_.ConsumeIntegralInRange(-4, 12));
    const auto data = std::span(record_).subspan(data_offset, size_t{run.io.size} * run.io.count);
    for (std::byte& byte : data.first(std::min<size_t>(data.size(), 8))) byte = static_cast<std::byte>(input_.ConsumeIntegral<uint8_t>());
    const bool pulse =
        run.io.direction == KVM_EXIT_IO_OUT && run.io.port == reset && run.io.size == 1 && std::ranges::find(data, std::byte{0xfe}) != data.end();
    reset_ = false;
    require(!exits_.handle(record_), "an access does not end the machine");
    require(reset_ == pulse, "only the pulse resets");
    const bool known = (run.io.port >= serial && run.io.port + run.io.size <= serial + 8) || (run.io.port == reset && run.io.size == 1);
    if (run.io.direction == KVM_EXIT_IO_IN && !known) all_ones(data);
  }

  void access() {
    auto& run = record();
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.is_write = input_.ConsumeBool() ? 1 : 0;
    run.mmio.len = input_.ConsumeIntegralInRange<uint32_t>(1, 8);
    run.mmio.phys_addr =
        input_.ConsumeIntegralInRange(0, 7) == 0
            ? input_.ConsumeIntegral<uint64_t>()
            : slots + input_.ConsumeIntegralInRange<uint64_t>(0, slot_count) * transport::VirtioMmio::size + input_.ConsumeIntegralInRange(-8, 0x140);
    for (auto& byte : run.mmio.data) byte = input_.ConsumeIntegral<uint8_t>();
    std::array<uint8_t, 8> before;
    std::ranges::copy(run.mmio.data, before.begin());
    require(!exits_.handle(record_), "an access does not end the machine");
    if (run.mmio.is_write != 0) return require(std::ranges::equal(run.mmio.data, before), "what is written is not touched");
    require(std::equal(before.begin() + run.mmio.len, before.end(), run.mmio.data + run.mmio.len), "more is read than asked for");
    const uint64_t at = run.mmio.phys_addr - slots;
    const bool known =
        at < slot_count * transport::VirtioMmio::size && at % transport::VirtioMmio::size + run.mmio.len <= transport::VirtioMmio::size;
    if (!known) all_ones(std::as_bytes(std::span(run.mmio.data).first(run.mmio.len)));
  }

  static void all_ones(std::span<const std::byte> data) {
    require(std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0xff}; }), "nobody's address reads all ones");
  }

  FuzzedDataProvider& input_;
  std::vector<std::byte> record_ = std::vector<std::byte>(record_bytes);
  std::array<testing::MmioGuest, slot_count> guests_;
  devices::console::Uart uart_{[](uint8_t) {}, [](bool) {}};
  bool reset_ = false;
  bool attached_ = false;
  kvm::Bus ports_;
  kvm::Bus memory_;
  kvm::Exits exits_{ports_, memory_};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider input(bytes, size);
  Script(input).run();
  return 0;
}
