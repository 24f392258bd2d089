// Cases of the persistent memory device: its configuration and its flushes. The memory itself is the VMM's.
#include <fcntl.h>

#include <array>

#include "devices/pmem/pmem.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

using devices::pmem::PmemDevice;
using devices::pmem::PmemOptions;

constexpr uint64_t start = 0x1'0000'0000;
constexpr uint64_t size = 2 << 20;

std::shared_ptr<virtio::Device> make(os::Descriptor file = {}) { return std::make_shared<PmemDevice>(PmemOptions{start, size, std::move(file)}); }

uint32_t ask(FrontEnd& front, uint32_t type) {
  const Answer answer = exchange(front, 0, std::as_bytes(std::span(&type, 1)), 4);
  expect(answer.written == 4, "length of the answer");
  uint32_t out;
  std::memcpy(&out, answer.bytes.data(), sizeof out);
  return out;
}

void flushes(FrontEnd& front) { expect(ask(front, 0) == 0, "a flush is answered"); }

void configuration() {
  const auto device = make();
  std::array<uint64_t, 3> config{1, 1, 1};
  device->read_config(0, std::as_writable_bytes(std::span(config)));
  expect(config == std::array<uint64_t, 3>{start, size, 0}, "start and size");
  std::array<std::byte, 4> part;
  device->read_config(SIZE_MAX - 1, part);
  expect(part == std::array<std::byte, 4>{}, "an offset that wraps");
}

void bad_ranges() {
  for (const auto& [address, length] : std::array<std::array<uint64_t, 2>, 4>{{{1, 4096}, {4096, 1}, {4096, 0}, {UINT64_MAX - 4095, 8192}}}) {
    try {
      PmemDevice(PmemOptions{address, length, {}});
    } catch (const std::invalid_argument&) {
      continue;
    }
    expect(false, "a broken range is refused");
  }
}

void file_flush() {
  const TemporaryFolder folder;
  FrontEnd front(make(os::Descriptor(::open((folder / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600))));
  flushes(front);
}

// A pipe cannot be synced: what the host says must come through.
void failed_flush() {
  std::array<int, 2> ends;
  os::checked(::pipe2(ends.data(), O_CLOEXEC), "pipe");
  const os::Descriptor reader(ends[0]);
  FrontEnd front(make(os::Descriptor(ends[1])));
  expect(ask(front, 0) == UINT32_MAX, "a failed flush is told");
}

void bad_requests() {
  FrontEnd front(make());
  expect(ask(front, 7) == UINT32_MAX, "an unknown request");
  const std::array<std::byte, 2> half{};
  expect(exchange(front, 0, half, 4).bytes[0] == std::byte{0xff}, "a request that is too short");
  expect(exchange(front, 0, {}, 4).bytes[0] == std::byte{0xff}, "a request of nothing");
  const uint64_t at = front.allocate(64);
  expect_stop(front, 0, std::array{RingDescriptor{at, 4, 0, 0}, RingDescriptor{at + 8, 3, flag_write, 0}});
}

}  // namespace

std::vector<Case> pmem_cases() {
  const auto without_file = [] { return make(); };
  std::vector<Case> out{
      {"pmem: configuration", configuration},
      {"pmem: broken ranges are refused", bad_ranges},
      {"pmem: flush of an image",
       [] {
         FrontEnd front(make());
         flushes(front);
       }},
      {"pmem: flush of a file", file_flush},
      {"pmem: a flush that fails", failed_flush},
      {"pmem: broken requests", bad_requests},
  };
  add_breakages(out, "pmem", 0, without_file, flushes, {std::vector<std::byte>(4), 4});
  return out;
}

}  // namespace tskata::testing
