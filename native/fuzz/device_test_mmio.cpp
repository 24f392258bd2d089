// Cases of virtio-mmio: its registers, the status machine behind them, and what a driver may do wrong (virtio 1.2 §2.1, §3.1, §4.2).
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <thread>

#include "devices/balloon/balloon.h"
#include "devices/rng/rng.h"
#include "fuzz/device_test.h"
#include "fuzz/mmio_driver.h"
#include "virtio/complaints.h"

namespace tskata::testing {

namespace {

constexpr uint64_t version_1 = virtio::feature_version_1;
constexpr uint32_t all_but_ok = mmio::acknowledge | mmio::driver | mmio::features_ok;

// Writes down what the transport does with it, and fails where it is told to.
class Probe final : public virtio::Device {
 public:
  static constexpr uint64_t own_features = 1ull << 5 | 1ull << 40 | virtio::feature_event_idx;
  static constexpr uint32_t id = 42;
  static constexpr uint16_t largest_queue = 64;

  uint32_t device_id() const override { return id; }
  uint64_t features() const override { return own_features; }
  size_t queue_count() const override { return 3; }
  uint16_t max_queue_size() const override { return largest_queue; }
  void read_config(size_t offset, std::span<std::byte> out) const override { virtio::copy_config(std::as_bytes(std::span(config)), offset, out); }
  void write_config(size_t offset, std::span<const std::byte> bytes) override {
    did("config " + std::to_string(offset) + "+" + std::to_string(bytes.size()));
  }
  void set_features(uint64_t features) override {
    accepted = features;
    did("features");
  }
  void on_config_change(std::function<void()> changed) override { config_changed = std::move(changed); }
  void start_queue(size_t index, virtio::ActiveQueue queue) override {
    active.at(index) = std::move(queue);
    did("start " + std::to_string(index));
  }
  void stop_queue(size_t index) override {
    active.at(index) = {};
    did("stop " + std::to_string(index));
  }
  void reset() override {
    expect(std::ranges::none_of(active, [](const virtio::ActiveQueue& queue) { return queue.queue != nullptr; }), "reset with all queues stopped");
    did("reset");
  }

  // What was done since the last call.
  std::string log() { return std::exchange(log_, ""); }

  std::array<std::byte, 12> config{};
  uint64_t accepted = 0;
  std::function<void()> config_changed;
  std::array<virtio::ActiveQueue, 3> active;
  std::string fails;  // the step that throws

 private:
  void did(const std::string& what) {
    log_ += (log_.empty() ? "" : ", ") + what;
    if (what == fails) throw std::system_error(EMFILE, std::generic_category(), "no more descriptors");
  }
  std::string log_;
};

struct Fixture : MmioGuest {
  std::shared_ptr<Probe> device = std::make_shared<Probe>();

  Fixture() {
    for (size_t i = 0; i < device->config.size(); ++i) device->config[i] = static_cast<std::byte>(i + 1);
    slot().attach(device);
  }
  uint32_t status() { return read(mmio::status); }
  void did(const std::string& wanted, int line = __builtin_LINE()) {
    const std::string log = device->log();
    expect(log == wanted, "the device saw \"" + log + "\", not \"" + wanted + "\"", line);
  }
  void run_two_queues() {
    write(mmio::status, 0u);
    device->log();
    expect(negotiate(), "features are accepted");
    set_up_queue(0);
    set_up_queue(2);
    driver_ok();
    did("features, start 0, start 2");
  }
};

bool readable(int fd) {
  pollfd wait{fd, POLLIN, 0};
  return ::poll(&wait, 1, 0) == 1;
}

// -- registers -----------------------------------------------------------------------------------------------------------

void identity() {
  Fixture it;
  expect(it.read(mmio::magic) == 0x74726976, "magic");
  expect(it.read(mmio::version) == 2, "version");
  expect(it.read(mmio::device_id) == Probe::id, "device id");
  expect(it.read(mmio::vendor_id) != 0, "vendor id");
  expect(it.read(mmio::shared_memory_length) == UINT32_MAX && it.read(mmio::shared_memory_length + 4) == UINT32_MAX, "no shared memory");
  for (const uint64_t offset : {mmio::driver_features, mmio::queue_size, mmio::queue_notify, mmio::interrupt_acknowledge, mmio::descriptors}) {
    it.write(offset, 7u);
    expect(it.read(offset) == 0, "a register that is only written reads zero");
  }
  expect(it.offered() == (Probe::own_features | version_1), "features with VERSION_1");
  it.write(mmio::device_features_select, 2u);
  expect(it.read(mmio::device_features) == 0, "no features beyond 64");
}

void read_only_registers() {
  Fixture it;
  it.run_two_queues();
  for (const uint64_t offset : {mmio::magic, mmio::version, mmio::device_id, mmio::vendor_id, mmio::device_features, mmio::queue_size_max,
                                mmio::interrupt_status, mmio::generation}) {
    const uint32_t before = it.read(offset);
    it.write(offset, ~before);
    expect(it.read(offset) == before, "a register that is only read keeps its value");
  }
  it.did("");
}

// Every width at every offset of the slot: only aligned words are registers (§4.2.2.2), and nothing reaches beyond the span.
void every_width() {
  Fixture it;
  it.run_two_queues();
  for (uint64_t offset = 0; offset < transport::VirtioMmio::size; ++offset) {
    for (const size_t width : {1u, 2u, 3u, 4u, 5u, 8u}) {
      std::array<std::byte, 16> bytes;
      bytes.fill(std::byte{0xee});
      it.slot().read(offset, std::span(bytes).subspan(4, width));
      for (size_t i = 0; i < bytes.size(); ++i)
        expect((i >= 4 && i < 4 + width) || bytes[i] == std::byte{0xee}, "only what was asked for is written");
      const bool is_register = offset < mmio::configuration;
      if (is_register && (width != 4 || offset % 4 != 0)) {
        expect(std::ranges::all_of(std::span(bytes).subspan(4, width), [](std::byte b) { return b == std::byte{0}; }), "no register");
        it.slot().write(offset, std::span(bytes).first(width));
      }
    }
  }
  it.did("");
  expect(it.status() == (all_but_ok | mmio::driver_ok), "writes of odd widths change nothing");
  it.slot().read(mmio::status, {});
  it.slot().write(mmio::status, {});
}

void configuration() {
  Fixture it;
  expect(it.read<uint8_t>(mmio::configuration + 1) == 2, "a byte");
  expect(it.read<uint16_t>(mmio::configuration + 1) == 0x0302, "two, not aligned");
  expect(it.read<uint32_t>(mmio::configuration + 4) == 0x08070605, "four");
  expect(it.read<uint64_t>(mmio::configuration + 4) == 0x0c0b0a0908070605, "eight");
  expect(it.read<uint64_t>(mmio::configuration + 8) == 0x0c0b0a09, "zeros beyond the end");
  expect(it.read<uint64_t>(transport::VirtioMmio::size - 8) == 0, "the end of the slot");
  expect(it.read<uint64_t>(UINT64_MAX) == 0, "an offset of any size");
  it.write<uint32_t>(mmio::configuration, 1);
  it.did("");  // §3.1.1: not before the features are settled
  expect(it.negotiate(), "features are accepted");
  it.write<uint8_t>(mmio::configuration + 3, 1);
  it.write<uint64_t>(mmio::configuration + 8, 1);
  it.did("features, config 3+1, config 8+8");
  it.device->fails = "config 0+2";
  it.write<uint16_t>(mmio::configuration, 1);
  expect(it.status() == all_but_ok, "what the device throws stays here");
}

// -- status and features -------------------------------------------------------------------------------------------------

void status_machine() {
  Fixture it;
  expect(it.status() == 0, "reset");
  it.write(mmio::status, mmio::features_ok | mmio::driver_ok);
  expect(it.status() == 0, "neither features nor start without a driver");
  it.write(mmio::status, mmio::acknowledge);
  it.write(mmio::status, mmio::driver);
  expect(it.status() == (mmio::acknowledge | mmio::driver), "bits are not taken back");
  it.write(mmio::status, mmio::acknowledge | mmio::driver | mmio::driver_ok);
  expect(it.status() == (mmio::acknowledge | mmio::driver), "no start without features");
  it.write(mmio::status, 0xffff'ff30 | mmio::needs_reset);
  expect(it.status() == (mmio::acknowledge | mmio::driver), "bits that are not the driver's");
  it.accept(version_1);
  it.write(mmio::status, all_but_ok);
  it.write(mmio::status, all_but_ok);
  it.did("features");
  it.driver_ok();
  it.driver_ok();
  it.write(mmio::status, mmio::acknowledge);
  expect(it.status() == (all_but_ok | mmio::driver_ok), "running");
  it.did("");
  it.write(mmio::status, 0u);
  it.did("reset");
  it.write(mmio::status, 0u);
  it.did("");
}

void failed() {
  Fixture it;
  it.run_two_queues();
  it.write(mmio::status, it.status() | mmio::failed);
  it.did("stop 0, stop 2");
  expect((it.status() & mmio::failed) != 0, "FAILED stands");
  it.write(mmio::configuration, 1u);
  it.write(mmio::status, 0u);
  it.did("reset");
  it.write(mmio::status, mmio::acknowledge | mmio::driver | mmio::failed);
  it.accept(version_1);
  it.write(mmio::status, all_but_ok | mmio::failed | mmio::driver_ok);
  expect(it.status() == (mmio::acknowledge | mmio::driver | mmio::failed), "nothing but a reset after FAILED");
  it.did("");
  it.run_two_queues();
}

void features_refused() {
  Fixture it;
  expect(!it.negotiate(0), "without VERSION_1");
  expect(!it.negotiate(version_1 | 1ull << 6), "a feature that is not offered");
  expect(!it.negotiate(version_1 | 1ull << 63), "the last one");
  it.did("reset, reset");
  it.accept(version_1 | 1ull << 40);
  it.write(mmio::status, all_but_ok);
  expect(it.status() == all_but_ok, "the driver may ask for less");
  expect(it.device->accepted == (version_1 | 1ull << 40), "the device is told");
}

void features_frozen() {
  Fixture it;
  expect(it.negotiate(version_1 | 1ull << 5), "features are accepted");
  it.accept(version_1 | Probe::own_features);
  it.write(mmio::status, all_but_ok);
  it.set_up_queue(0);
  it.driver_ok();
  expect(it.device->accepted == (version_1 | 1ull << 5), "what was accepted stands");
  it.did("features, start 0");
  it.write(mmio::status, 0u);
  it.write(mmio::status, mmio::acknowledge | mmio::driver);
  it.write(mmio::status, all_but_ok);
  expect((it.status() & mmio::features_ok) == 0, "a reset forgets what was accepted");
}

void features_device_refuses() {
  Fixture it;
  it.device->fails = "features";
  expect(!it.negotiate(), "a device that cannot do what is asked refuses");
  it.device->fails = "";
  expect(it.negotiate(), "the next time it can");
}

void reset_before_any_queue() {
  Fixture it;
  expect(it.negotiate(), "features are accepted");
  it.device->log();
  it.write(mmio::status, 0u);
  it.did("reset");
}

// -- queues --------------------------------------------------------------------------------------------------------------

void queue_selection() {
  Fixture it;
  expect(it.read(mmio::queue_size_max) == Probe::largest_queue, "largest queue");
  for (const uint32_t index : {3u, 100u, UINT32_MAX}) {
    it.write(mmio::queue_select, index);
    expect(it.read(mmio::queue_size_max) == 0 && it.read(mmio::queue_ready) == 0, "no such queue");
    it.write(mmio::queue_ready, 1u);
    expect(it.read(mmio::queue_ready) == 0, "nor can it be made ready");
  }
}

void queue_order() {
  Fixture it;
  it.write(mmio::queue_select, 0u);
  it.write(mmio::queue_ready, 1u);
  expect(it.read(mmio::queue_ready) == 0, "not before the features");
  expect(it.negotiate(), "features are accepted");
  DriverQueue queue = it.set_up_queue(0);
  expect(it.read(mmio::queue_ready) == 1, "ready");
  it.describe_queue(0, {3, 1, 1, 1});  // ignored: the queue is ready
  it.write(mmio::queue_ready, 7u);
  it.driver_ok();
  it.did("features, start 0");
  expect(it.device->active[0].queue != nullptr, "with the rings it had when it was made ready");
  it.set_up_queue(1);
  expect(it.read(mmio::queue_ready) == 0, "none is added after DRIVER_OK");
  it.did("");
}

void unready() {
  Fixture it;
  expect(it.negotiate(), "features are accepted");
  it.set_up_queue(0);
  it.set_up_queue(1);
  it.write(mmio::queue_ready, 0u);
  it.driver_ok();
  it.did("features, start 0");
  // §4.2.2: once it reads zero the device uses the memory no more.
  it.write(mmio::queue_select, 0u);
  it.write(mmio::queue_ready, 0u);
  expect(it.read(mmio::queue_ready) == 0, "stopped");
  it.did("stop 0");
  it.write(mmio::queue_ready, 1u);
  expect(it.read(mmio::queue_ready) == 0, "and not started again before a reset");
  it.write(mmio::status, 0u);
  it.did("reset");
}

void needs_reset(const virtio::QueueLayout& layout) {
  Fixture it;
  expect(it.negotiate(), "features are accepted");
  it.set_up_queue(0);
  it.describe_queue(1, layout);
  it.write(mmio::queue_ready, 1u);
  it.driver_ok();
  expect(it.status() == (all_but_ok | mmio::driver_ok | mmio::needs_reset), "the device needs a reset");
  it.did("features, start 0, stop 0");
  expect(it.read(mmio::interrupt_status) == 2 && it.raised() == 1, "and says so (§2.1.2)");
  it.write(mmio::status, 0u);
  it.did("reset");
  it.run_two_queues();
}

void start_fails() {
  Fixture it;
  it.device->fails = "start 2";
  expect(it.negotiate(), "features are accepted");
  it.set_up_queue(0);
  it.set_up_queue(2);
  it.driver_ok();
  expect((it.status() & mmio::needs_reset) != 0, "a host out of descriptors is a device that needs a reset");
  it.did("features, start 0, start 2, stop 0, stop 2");
  it.device->fails = "reset";
  it.write(mmio::status, 0u);
  expect(it.status() == 0, "whatever the device makes of it");
  it.device->fails = "stop 0";
  it.device->log();
  it.run_two_queues();
  it.remove_slot();
  it.did("stop 0, stop 2, reset");
}

void queue_sizes() {
  for (const uint32_t size : {1u, 2u, 64u}) {
    Fixture it;
    expect(it.negotiate(), "features are accepted");
    it.describe_queue(0, {static_cast<uint16_t>(size), MmioGuest::base, MmioGuest::base + 4096, MmioGuest::base + 8192});
    it.write(mmio::queue_ready, 1u);
    it.driver_ok();
    it.did("features, start 0");
  }
  for (const uint32_t size : {65u, 128u, 32768u, 65536u, 65537u, 0x8000'0000u}) {
    Fixture it;
    expect(it.negotiate(), "features are accepted");
    it.describe_queue(0, {64, MmioGuest::base, MmioGuest::base + 4096, MmioGuest::base + 8192});
    it.write(mmio::queue_size, size);
    it.write(mmio::queue_ready, 1u);
    it.driver_ok();
    expect((it.status() & mmio::needs_reset) != 0, "a size beyond the largest");
  }
}

// -- reset, interrupts, notifications ------------------------------------------------------------------------------------

void reset_clears() {
  Fixture it;
  it.run_two_queues();
  const std::vector<int> kicks = it.slot().notifiers();
  it.write(mmio::queue_notify, 0u);
  it.device->active[0].interrupt();
  it.device->config_changed();
  it.write(mmio::queue_select, 2u);
  it.write(mmio::status, 0u);
  it.did("stop 0, stop 2, reset");
  expect(it.status() == 0 && it.read(mmio::interrupt_status) == 0, "status and interrupts are cleared");
  expect(!readable(kicks[0]), "no notification is left");
  for (const uint32_t index : {0u, 1u, 2u}) {
    it.write(mmio::queue_select, index);
    expect(it.read(mmio::queue_ready) == 0, "no queue is ready");
  }
  // Addresses of before are forgotten: a queue that is only made ready has no rings.
  expect(it.negotiate(), "features are accepted");
  it.write(mmio::queue_select, 0u);
  it.write(mmio::queue_ready, 1u);
  it.driver_ok();
  expect((it.status() & mmio::needs_reset) != 0, "rings of before are forgotten");
}

void interrupts() {
  Fixture it;
  it.run_two_queues();
  it.raised();
  it.device->active[0].interrupt();
  expect(it.read(mmio::interrupt_status) == 1 && it.raised() == 1, "a used buffer");
  it.device->active[2].interrupt();
  expect(it.raised() == 0, "not again while the driver has not seen it");
  it.device->config_changed();
  expect(it.read(mmio::interrupt_status) == 3 && it.raised() == 1, "configuration");
  it.write(mmio::interrupt_acknowledge, 1u);
  expect(it.read(mmio::interrupt_status) == 2, "each is acknowledged by itself");
  it.device->active[0].interrupt();
  expect(it.read(mmio::interrupt_status) == 3 && it.raised() == 1, "again");
  it.write(mmio::interrupt_acknowledge, UINT32_MAX);
  expect(it.read(mmio::interrupt_status) == 0, "all");
}

// A change that the driver can't hear yet is told when it can; and the bit that stands meanwhile keeps no later one from being told.
void early_configuration_change() {
  Fixture it;
  const uint32_t generation = it.read(mmio::generation);
  expect(it.negotiate(), "features are accepted");
  it.set_up_queue(0);
  it.device->config_changed();
  expect(it.raised() == 0, "no interrupt before DRIVER_OK");
  expect(it.read(mmio::generation) != generation, "the generation moves at once");
  it.driver_ok();
  expect(it.read(mmio::interrupt_status) == 2 && it.raised() == 1, "told at DRIVER_OK");
  it.write(mmio::interrupt_acknowledge, 2u);
  it.device->config_changed();
  expect(it.raised() == 1, "the next one, too");
  it.write(mmio::status, 0u);
  it.device->config_changed();
  expect(it.raised() == 0, "and none after a reset");
}

void notifications() {
  Fixture it;
  const std::vector<int> kicks = it.slot().notifiers();
  expect(kicks.size() == 3, "one a queue");
  it.run_two_queues();
  expect(it.device->active[2].kick == kicks[2], "the queue's own");
  it.write(mmio::queue_notify, 2u);
  expect(readable(kicks[2]) && !readable(kicks[0]), "by the register");
  for (const uint32_t index : {3u, UINT32_MAX}) it.write(mmio::queue_notify, index);
  expect(!readable(kicks[0]) && !readable(kicks[1]), "no such queue");
  // Far more than the counter holds: nobody waits.
  const uint64_t almost_full = UINT64_MAX - 2;
  expect(::write(kicks[0], &almost_full, sizeof almost_full) == sizeof almost_full, "write");
  for (int i = 0; i < 3; ++i) it.write(mmio::queue_notify, 0u);
}

void placeholder() {
  MmioGuest it;
  expect(it.read(mmio::magic) == 0x74726976 && it.read(mmio::version) == 2 && it.read(mmio::device_id) == 0, "an empty slot says so");
  expect(it.slot().notifiers().empty(), "no queues");
  for (uint64_t offset = 0; offset < transport::VirtioMmio::size; offset += 4) it.write(offset, 0xffffffffu);
  expect(!it.negotiate(), "nothing to negotiate with");
  for (const uint64_t offset :
       {mmio::device_features, mmio::queue_size_max, mmio::queue_ready, mmio::interrupt_status, mmio::status, mmio::configuration}) {
    expect(it.read(offset) == 0, "zero");
  }
  it.slot().attach(std::make_shared<devices::rng::RngDevice>());
  expect(it.read(mmio::device_id) == 4 && it.read(mmio::status) == 0, "a device that comes later");
  bool refused = false;
  try {
    it.slot().attach(std::make_shared<Probe>());
  } catch (const std::logic_error&) {
    refused = true;
  }
  expect(refused && it.read(mmio::device_id) == 4, "once");
}

// -- with real devices ---------------------------------------------------------------------------------------------------

void random_bytes(MmioGuest& it, const std::function<void(uint32_t)>& notify) {
  expect(it.negotiate(), "features are accepted");
  DriverQueue queue = it.set_up_queue(0);
  it.driver_ok();
  const uint64_t at = MmioGuest::base + 0x8000;
  for (int i = 0; i < 3; ++i) {
    queue.add(std::array{RingDescriptor{at, 64, flag_write, 0}});
    notify(0);
    std::optional<Used> used;
    eventually([&] { return (used = queue.take()).has_value(); }, "the buffer comes back");
    expect(used->length == 64, "filled");
    eventually([&] { return it.read(mmio::interrupt_status) == 1; }, "the driver is interrupted");
    it.write(mmio::interrupt_acknowledge, 1u);
  }
  expect(std::ranges::count(it.at(at, 64), std::byte{0}) < 16, "with random bytes");
}

void serves() {
  MmioGuest it;
  it.slot().attach(std::make_shared<devices::rng::RngDevice>());
  random_bytes(it, [&](uint32_t index) { it.write(mmio::queue_notify, index); });
  const int kick = it.slot().notifiers().front();
  random_bytes(it, [&](uint32_t) {  // as KVM's ioeventfd does
    const uint64_t one = 1;
    expect(::write(kick, &one, sizeof one) == sizeof one, "kick");
  });
}

// The driver goes away while the device is at work: when the write of zero returns, memory is left alone.
void reset_in_mid_flight() {
  MmioGuest it;
  it.slot().attach(std::make_shared<devices::rng::RngDevice>());
  const uint64_t at = MmioGuest::base + 0x8000;
  for (int round = 0; round < 50; ++round) {
    expect(it.negotiate(), "features are accepted");
    DriverQueue queue = it.set_up_queue(0);
    it.driver_ok();
    for (int i = 0; i < MmioGuest::queue_size; ++i) queue.add(std::array{RingDescriptor{at, 0x8000, flag_write, 0}});
    it.write(mmio::queue_notify, 0u);
    if (round % 2 == 0) std::this_thread::yield();
    it.write(mmio::status, 0u);
    const uint16_t used = queue.used_index();
    std::ranges::fill(it.at(at, 0x8000), std::byte{0});
    std::this_thread::yield();
    expect(queue.used_index() == used, "no buffer comes back after the reset");
    expect(std::ranges::all_of(it.at(at, 0x8000), [](std::byte b) { return b == std::byte{0}; }), "nor is memory written");
    expect(it.read(mmio::interrupt_status) == 0, "nor is an interrupt left");
  }
}

void slot_goes_first() {
  const auto balloon = std::make_shared<devices::balloon::BalloonDevice>();
  MmioGuest it;
  it.slot().attach(balloon);
  expect(it.negotiate(), "features are accepted");
  it.set_up_queue(0);
  it.driver_ok();
  balloon->set_target(7);
  expect(it.raised() == 1 && it.read(mmio::configuration) == 7, "the target is told");
  it.remove_slot();
  balloon->set_target(8);
  expect(it.raised() == 0, "nobody is told");
}

// A fault is a line, and a guest can have as many faults as it likes.
void log_is_bounded() {
  const os::Descriptor log(os::checked(::memfd_create("log", MFD_CLOEXEC), "memfd_create"));
  const os::Descriptor terminal(os::checked(::dup(STDERR_FILENO), "dup"));
  os::checked(::dup2(log.get(), STDERR_FILENO), "dup2");
  {
    Fixture it;
    for (int round = 0; round < 1000; ++round) {
      (void)it.negotiate();
      it.write(mmio::queue_ready, 1u);
      it.driver_ok();
    }
  }
  os::checked(::dup2(terminal.get(), STDERR_FILENO), "dup2");
  std::string text(1 << 20, '\0');
  text.resize(static_cast<size_t>(os::checked(static_cast<int>(::pread(log.get(), text.data(), text.size(), 0)), "pread")));
  expect(std::ranges::count(text, '\n') == virtio::max_complaints, "so many lines and no more");
  expect(text.ends_with("not told)\n"), "the last says so");
}

// vCPUs and device threads at once, each as fast as it can; the sanitizers judge.
void many_threads() {
  const auto balloon = std::make_shared<devices::balloon::BalloonDevice>();
  MmioGuest it;
  it.slot().attach(balloon);
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  const auto again = [&](const std::function<void(uint32_t)>& what) {
    threads.emplace_back([&done, what] {
      for (uint32_t i = 0; !done; ++i) what(i);
    });
  };
  again([&](uint32_t) {
    (void)it.negotiate();
    for (const uint32_t index : {0u, 1u}) {
      const uint64_t rings = MmioGuest::base + index * MmioGuest::ring_stride;
      it.describe_queue(index, {MmioGuest::queue_size, rings, rings + 1024, rings + 2048});
      it.write(mmio::queue_ready, 1u);
    }
    it.driver_ok();
  });
  again([&](uint32_t i) { it.write(mmio::queue_notify, i % 4); });
  again([&](uint32_t i) { balloon->set_target(i); });
  again([&](uint32_t) { it.write(mmio::interrupt_acknowledge, it.read(mmio::interrupt_status)); });
  again([&](uint32_t i) { (void)it.read<uint64_t>(mmio::configuration + i % 16); });
  again([&](uint32_t i) { it.write<uint32_t>(mmio::configuration + i % 8, i); });
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  done = true;
  for (std::thread& thread : threads) thread.join();
  it.write(mmio::status, 0u);
  expect(it.negotiate(), "the device is as new");
}

// What listens for notifications fails: the slot is as empty as before, and the device is nobody's.
void attach_fails() {
  MmioGuest it;
  const auto probe = std::make_shared<Probe>();
  const auto fails = [&](const transport::VirtioMmio::Listen& listen) {
    try {
      it.slot().attach(probe, listen);
    } catch (const std::system_error&) {
      return true;
    }
    return false;
  };
  size_t queues = 0;
  expect(fails([&](std::span<const int> notifiers) {
           queues = notifiers.size();
           throw std::system_error(ENOSPC, std::generic_category(), "ioeventfd");
         }),
         "the error is the caller's");
  expect(queues == 3, "a notifier for each queue");
  rlimit before{};
  os::checked(::getrlimit(RLIMIT_NOFILE, &before), "getrlimit");
  const rlimit none{0, before.rlim_max};
  os::checked(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
  const bool refused = fails({});
  os::checked(::setrlimit(RLIMIT_NOFILE, &before), "setrlimit");
  expect(refused, "no descriptors");
  expect(it.read(mmio::device_id) == 0 && !it.negotiate() && it.slot().notifiers().empty(), "a placeholder still");
  expect(!probe->config_changed, "the device knows nothing of the slot");
  it.slot().attach(std::make_shared<devices::rng::RngDevice>());
  random_bytes(it, [&](uint32_t index) { it.write(mmio::queue_notify, index); });
}

void attach_while_it_is_read() {
  for (int round = 0; round < 50; ++round) {
    MmioGuest it;
    std::atomic<bool> done = false;
    std::thread vcpu([&] {
      while (!done) {
        const uint32_t id = it.read(mmio::device_id);
        expect(id == 0 || id == 4, "no device, or the whole device");
        if (id == 4) expect((it.offered() & version_1) != 0, "with its features");
        it.write(mmio::queue_notify, 0u);
      }
    });
    it.slot().attach(std::make_shared<devices::rng::RngDevice>());
    std::this_thread::yield();
    done = true;
    vcpu.join();
  }
}

}  // namespace

std::vector<Case> mmio_cases() {
  constexpr uint64_t base = MmioGuest::base;
  constexpr uint64_t end = base + (1 << 18);
  std::vector<Case> out{
      {"mmio: identity", identity},
      {"mmio: read-only registers", read_only_registers},
      {"mmio: every width at every offset", every_width},
      {"mmio: configuration space", configuration},
      {"mmio: status machine", status_machine},
      {"mmio: FAILED", failed},
      {"mmio: features refused", features_refused},
      {"mmio: features frozen", features_frozen},
      {"mmio: features that the device refuses", features_device_refuses},
      {"mmio: reset before any queue", reset_before_any_queue},
      {"mmio: queue selection", queue_selection},
      {"mmio: order of queue set-up", queue_order},
      {"mmio: queue made unready", unready},
      {"mmio: queue sizes", queue_sizes},
      {"mmio: device that fails to start", start_fails},
      {"mmio: reset clears everything", reset_clears},
      {"mmio: interrupts", interrupts},
      {"mmio: configuration change before DRIVER_OK", early_configuration_change},
      {"mmio: notifications", notifications},
      {"mmio: placeholder", placeholder},
      {"mmio: a device serves", serves},
      {"mmio: reset in mid-flight", reset_in_mid_flight},
      {"mmio: slot that goes before its device", slot_goes_first},
      {"mmio: a guest that would fill the log", log_is_bounded},
      {"mmio: many threads", many_threads},
      {"mmio: device attached while the slot is read", attach_while_it_is_read},
      {"mmio: device that cannot be attached", attach_fails},
  };
  const std::vector<std::pair<std::string, virtio::QueueLayout>> broken{
      {"no size", {0, base, base + 4096, base + 8192}},
      {"size that is no power of two", {48, base, base + 4096, base + 8192}},
      {"descriptors outside memory", {16, 0x1000, base + 4096, base + 8192}},
      {"descriptors misaligned", {16, base + 8, base + 4096, base + 8192}},
      {"available ring misaligned", {16, base, base + 4097, base + 8192}},
      {"used ring misaligned", {16, base, base + 4096, base + 8194}},
      {"available ring beyond the end", {16, base, end - 2, base + 8192}},
      {"used ring beyond the end", {16, base, base + 4096, end - 64}},
      {"addresses that wrap", {16, UINT64_MAX - 15, base + 4096, base + 8192}},
      {"high halves", {16, base | 1ull << 40, base + 4096, base + 8192}},
  };
  for (const auto& [name, layout] : broken) out.push_back({"mmio: rings with " + name, [layout = layout] { needs_reset(layout); }});
  return out;
}

}  // namespace tskata::testing
