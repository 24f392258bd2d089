// Cases of what stands behind the vCPU loop: buses, the dispatch of exits, the ports of the platform. Only the last needs /dev/kvm, and
// says so where it is missing.
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <thread>

#include "fuzz/device_test.h"
#include "kvm/exits.h"
#include "kvm/machine.h"
#include "kvm/starter.h"
#include "kvm/platform.h"

namespace tskata::testing {

namespace {

using kvm::ExitCounters;

struct Machine {
  static constexpr size_t data_offset = 4096;

  kvm::Bus ports;
  kvm::Bus memory;
  kvm::Exits exits{ports, memory};
  std::vector<std::byte> record = std::vector<std::byte>(2 * data_offset);

  kvm_run& run() { return *reinterpret_cast<kvm_run*>(record.data()); }
  std::optional<kvm::Ending> handle() { return exits.handle(record); }
  std::span<std::byte> data(size_t bytes) { return std::span(record).subspan(data_offset, bytes); }

  std::optional<kvm::Ending> port(uint8_t direction, uint16_t port, uint8_t size, uint32_t count, uint64_t offset = data_offset) {
    run().exit_reason = KVM_EXIT_IO;
    run().io = {direction, size, port, count, offset};
    return handle();
  }
  std::optional<kvm::Ending> access(uint64_t address, uint32_t length, bool write) {
    run().exit_reason = KVM_EXIT_MMIO;
    run().mmio.phys_addr = address;
    run().mmio.len = length;
    run().mmio.is_write = write ? 1 : 0;
    return handle();
  }
};

kvm::BusRange memory_cells(uint64_t base, std::span<std::byte> cells) {
  return {base, cells.size(),
          [cells](uint64_t offset, std::span<std::byte> out) { std::ranges::copy(cells.subspan(offset, out.size()), out.begin()); },
          [cells](uint64_t offset, std::span<const std::byte> in) { std::ranges::copy(in, cells.subspan(offset).begin()); }};
}

bool refused(const std::function<void()>& body) {
  try {
    body();
    return false;
  } catch (const std::logic_error&) {
    return true;
  }
}

void bus_ranges() {
  std::array<std::byte, 16> cells{};
  kvm::Bus bus;
  bus.add(memory_cells(100, cells));
  for (const auto& [base, size] :
       std::vector<std::pair<uint64_t, uint64_t>>{{100, 1}, {115, 4}, {90, 11}, {0, UINT64_MAX}, {200, 0}, {UINT64_MAX - 1, 4}}) {
    expect(refused([&, base = base, size = size] { bus.add({base, size, {}, {}}); }), "a range that overlaps, or is none");
  }
  bus.add({116, 4, {}, {}});
  bus.add({96, 4, {}, {}});
  bus.close();
  expect(refused([&] { bus.add({500, 4, {}, {}}); }), "nothing is added once the machine runs");
}

void bus_edges() {
  std::array<std::byte, 16> cells{};
  Machine it;
  it.memory.add(memory_cells(0x1000, cells));
  for (const auto& [address, length, known] : std::vector<std::tuple<uint64_t, uint32_t, bool>>{
           {0x1000, 8, true}, {0x100f, 1, true}, {0x100f, 2, false}, {0xfff, 2, false}, {0x1010, 1, false}, {0, 1, false}, {UINT64_MAX, 8, false}}) {
    expect(!it.access(address, length, false), "goes on");
    const auto all_ones = std::ranges::all_of(std::span(it.run().mmio.data).first(length), [](uint8_t byte) { return byte == 0xff; });
    expect(all_ones != known, "an access is wholly in a range, or reads all ones");
    expect(!it.access(address, length, true), "goes on");
  }
}

void string_access() {
  std::vector<std::string> seen;
  Machine it;
  it.ports.add({0x10, 4, [n = 0](uint64_t, std::span<std::byte> out) mutable { std::ranges::fill(out, static_cast<std::byte>(++n)); },
                [&](uint64_t offset, std::span<const std::byte> in) {
                  seen.push_back(std::to_string(offset) + ":" + std::to_string(in.size()) + ":" + std::to_string(std::to_integer<int>(in.front())));
                }});
  for (size_t i = 0; i < 6; ++i) it.data(6)[i] = static_cast<std::byte>(i);
  expect(!it.port(KVM_EXIT_IO_OUT, 0x12, 2, 3), "goes on");
  expect(seen == std::vector<std::string>{"2:2:0", "2:2:2", "2:2:4"}, "each element by itself, at the same port");
  expect(!it.port(KVM_EXIT_IO_IN, 0x10, 1, 3), "goes on");
  expect(it.data(4)[0] == std::byte{1} && it.data(4)[2] == std::byte{3} && it.data(4)[3] == std::byte{3}, "as many as asked for");
  expect(!it.port(KVM_EXIT_IO_IN, 0x10, 4, 0), "none is none");
}

void broken_records() {
  Machine it;
  const size_t size = it.record.size();
  const auto ends = [](const std::optional<kvm::Ending>& why) { expect(why && why->kind == "host-error", "the machine ends by name"); };
  ends(it.port(KVM_EXIT_IO_OUT, 1, 1, 1, size));
  ends(it.port(KVM_EXIT_IO_OUT, 1, 4, 1, size - 3));
  ends(it.port(KVM_EXIT_IO_IN, 1, 1, UINT32_MAX));
  ends(it.port(KVM_EXIT_IO_IN, 1, 0, UINT32_MAX));
  ends(it.port(KVM_EXIT_IO_IN, 1, 3, 1));
  ends(it.port(KVM_EXIT_IO_IN, 1, 1, 1, UINT64_MAX));
  ends(it.access(0, 0, false));
  ends(it.access(0, 9, true));
  ends(it.exits.handle(std::span(it.record).first(100)));
}

void endings() {
  Machine it;
  const auto kind = [&](uint32_t reason) {
    it.run().exit_reason = reason;
    const auto why = it.handle();
    return why ? why->kind : "";
  };
  expect(kind(KVM_EXIT_HLT) == "halt" && kind(KVM_EXIT_SHUTDOWN) == "shutdown" && kind(KVM_EXIT_INTR).empty(), "by name");
  it.run().internal.suberror = 3;
  it.run().exit_reason = KVM_EXIT_INTERNAL_ERROR;
  expect(it.handle()->detail == 3, "with what KVM says of it");
  it.run().exit_reason = 9999;
  expect(it.handle()->kind == "unknown-exit" && it.handle()->detail == 9999, "those that there are not yet");
}

// What is thrown on a vCPU's thread would end the process.
void handler_that_throws() {
  Machine it;
  it.ports.add({0x10, 1, [](uint64_t, std::span<std::byte>) { throw std::system_error(ENOSPC, std::generic_category(), "test"); },
                [](uint64_t, std::span<const std::byte>) { throw std::runtime_error("test"); }});
  const auto read = it.port(KVM_EXIT_IO_IN, 0x10, 1, 1);
  expect(read && read->kind == "host-error" && read->detail == ENOSPC, "with its errno");
  const auto write = it.port(KVM_EXIT_IO_OUT, 0x10, 1, 1);
  expect(write && write->kind == "host-error" && write->detail == 0, "or without one");
}

// A guest may touch as many ports and pages as it likes: what is remembered of them is bounded.
void counters_are_bounded() {
  Machine it;
  expect(!it.port(KVM_EXIT_IO_OUT, 0, 1, 2), "goes on");
  for (uint64_t page = 0; page < 5000; ++page) (void)it.access(page << 12 | 5, 4, true);
  (void)it.access(4096, 4, true);
  it.exits.counters().add(ExitCounters::Kind::interrupted);
  const auto counts = it.exits.counters().by_cause();
  expect(counts.size() <= ExitCounters::max_causes + 2, "bounded");
  expect(counts.at("io 0x0") == 1 && counts.at("mmio 0x1000") == 2 && counts.at("interrupted") == 1, "the first ones by name");
  uint64_t sum = 0;
  for (const auto& [name, times] : counts) sum += times;
  expect(sum == 5003 && counts.at("mmio elsewhere") > 4000, "and all of them counted");
}

void platform_ports() {
  Machine it;
  int resets = 0;
  std::string output;
  devices::console::Uart uart([&](uint8_t byte) { output += static_cast<char>(byte); }, [](bool) {});
  it.ports.add(kvm::reset_port(0x64, [&] { ++resets; }));
  it.ports.add(kvm::serial_port(0x3f8, uart));
  const auto out = [&](uint16_t port, std::initializer_list<uint8_t> bytes, uint8_t size) {
    std::ranges::transform(bytes, it.data(bytes.size()).begin(), [](uint8_t byte) { return static_cast<std::byte>(byte); });
    expect(!it.port(KVM_EXIT_IO_OUT, port, size, static_cast<uint32_t>(bytes.size() / size)), "goes on");
  };
  out(0x64, {0xd1}, 1);
  out(0x60, {0xfe}, 1);
  expect(resets == 0, "other commands, other ports");
  out(0x64, {0xfe}, 1);
  expect(resets == 1, "the pulse");
  expect(!it.port(KVM_EXIT_IO_IN, 0x64, 1, 1) && it.data(1)[0] == std::byte{0}, "the controller's buffer is empty");
  out(0x3f8, {'o', 'k'}, 1);
  out(0x3fe, {0, 0x42}, 2);
  expect(output == "ok", "bytes of a string instruction");
  expect(!it.port(KVM_EXIT_IO_IN, 0x3fe, 2, 1) && it.data(2)[1] == std::byte{0x42}, "a word is two registers");
}

// A notification that another descriptor listens for already is refused by KVM: then none of the others is listened for either.
void ioeventfds_all_or_none() {
  need(::access("/dev/kvm", R_OK | W_OK) == 0, "a /dev/kvm that may be opened");
  constexpr uint64_t address = 0x1000'0050;
  kvm::Machine machine(kvm::System("/dev/kvm"), [](const kvm::Ending&) {});
  std::vector<os::Descriptor> events;
  std::vector<int> fds;
  for (int i = 0; i < 3; ++i) {
    events.emplace_back(os::checked(::eventfd(0, EFD_CLOEXEC), "eventfd"));
    fds.push_back(events.back().get());
  }
  const auto refused = [&](std::span<const int> all) {
    try {
      machine.add_ioeventfds(all, address);
      return false;
    } catch (const std::system_error& error) {
      return error.code().value() == EEXIST || error.code().value() == EBADF;
    }
  };
  const std::array broken{fds[0], fds[1], -1};
  expect(refused(broken), "no descriptor");
  expect(!refused(fds), "nothing of the first attempt is left");
  expect(refused(fds), "one listener each");
  expect(refused(std::span(fds).first(1)), "those that stood are not taken away");
}

void starter() {
  kvm::Starter it;
  const auto thread_of = [&] {
    std::thread::id out;
    it.run([&] { out = std::this_thread::get_id(); });
    return out;
  };
  expect(thread_of() == std::this_thread::get_id(), "here while there is no thread");
  it.start();
  const std::thread::id its_own = thread_of();
  expect(its_own != std::this_thread::get_id() && thread_of() == its_own, "elsewhere, and always the same");
  const auto fails = [&] {
    try {
      it.run([] { throw std::system_error(EAGAIN, std::generic_category(), "no more threads"); });
    } catch (const std::system_error& error) {
      return error.code().value() == EAGAIN;
    }
    return false;
  };
  expect(fails() && fails() && thread_of() == its_own, "a failure is the caller's");
  int count = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 500; ++j) it.run([&] { ++count; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(count == 4000, "one after the other");
  it.stop();
  it.stop();
}

}  // namespace

std::vector<Case> kvm_cases() {
  return {
      {"kvm: bus ranges", bus_ranges},
      {"kvm: edges of a range", bus_edges},
      {"kvm: string access", string_access},
      {"kvm: broken exit records", broken_records},
      {"kvm: endings", endings},
      {"kvm: handler that throws", handler_that_throws},
      {"kvm: counters are bounded", counters_are_bounded},
      {"kvm: reset and serial ports", platform_ports},
      {"kvm: notifications of a device, all or none", ioeventfds_all_or_none},
      {"kvm: starter of queues", starter},
  };
}

}  // namespace tskata::testing
