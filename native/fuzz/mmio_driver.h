// A guest's side of a virtio-mmio slot (virtio 1.2 §4.2), for device tests and fuzzers: memory, and the registers by their names.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "fuzz/driver_queue.h"
#include "transport/virtio_mmio.h"

namespace tskata::testing {

namespace mmio {
enum Register : uint64_t {
  magic = 0x000,
  version = 0x004,
  device_id = 0x008,
  vendor_id = 0x00c,
  device_features = 0x010,
  device_features_select = 0x014,
  driver_features = 0x020,
  driver_features_select = 0x024,
  queue_select = 0x030,
  queue_size_max = 0x034,
  queue_size = 0x038,
  queue_ready = 0x044,
  queue_notify = 0x050,
  interrupt_status = 0x060,
  interrupt_acknowledge = 0x064,
  status = 0x070,
  descriptors = 0x080,
  available = 0x090,
  used = 0x0a0,
  shared_memory_length = 0x0b0,
  generation = 0x0fc,
  configuration = 0x100,
};

// §2.1
constexpr uint32_t acknowledge = 1;
constexpr uint32_t driver = 2;
constexpr uint32_t driver_ok = 4;
constexpr uint32_t features_ok = 8;
constexpr uint32_t needs_reset = 64;
constexpr uint32_t failed = 128;
}  // namespace mmio

class MmioGuest {
 public:
  static constexpr uint64_t base = 0x10000;
  static constexpr uint16_t queue_size = 16;
  static constexpr size_t ring_stride = 4096;

  explicit MmioGuest(size_t bytes = 1 << 18) : pages_(bytes / sizeof(Page)) {
    memory_ = std::make_shared<const virtio::GuestMemory>(std::vector<virtio::MemoryRegion>{{base, bytes_of_memory()}});
    slot_ = std::make_unique<transport::VirtioMmio>(memory_, [this] { ++raised_; });
  }

  transport::VirtioMmio& slot() { return *slot_; }
  void remove_slot() { slot_.reset(); }
  int raised() { return raised_.exchange(0); }  // since the last call

  template <typename T = uint32_t>
  T read(uint64_t offset) {
    T value{};
    slot_->read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <typename T = uint32_t>
  void write(uint64_t offset, T value) {
    slot_->write(offset, std::as_bytes(std::span(&value, 1)));
  }
  void write_address(uint64_t low, uint64_t address) {
    write(low, static_cast<uint32_t>(address));
    write(low + 4, static_cast<uint32_t>(address >> 32));
  }

  uint64_t offered() {
    write(mmio::device_features_select, 1u);
    const uint64_t high = read(mmio::device_features);
    write(mmio::device_features_select, 0u);
    return high << 32 | read(mmio::device_features);
  }
  void accept(uint64_t features) {
    for (const uint32_t half : {0u, 1u}) {
      write(mmio::driver_features_select, half);
      write(mmio::driver_features, static_cast<uint32_t>(features >> (32 * half)));
    }
  }
  // Up to FEATURES_OK; whether it stands.
  bool negotiate(uint64_t features = virtio::feature_version_1) {
    write(mmio::status, 0u);
    write(mmio::status, mmio::acknowledge);
    write(mmio::status, mmio::acknowledge | mmio::driver);
    accept(features);
    write(mmio::status, mmio::acknowledge | mmio::driver | mmio::features_ok);
    return (read(mmio::status) & mmio::features_ok) != 0;
  }
  void describe_queue(uint32_t index, const virtio::QueueLayout& layout) {
    write(mmio::queue_select, index);
    write(mmio::queue_size, uint32_t{layout.size});
    write_address(mmio::descriptors, layout.descriptors);
    write_address(mmio::available, layout.available);
    write_address(mmio::used, layout.used);
  }
  // Empty rings, each queue's at a place of its own.
  DriverQueue make_queue(uint32_t index) {
    const auto rings = bytes_of_memory().subspan(index * ring_stride, DriverQueue::bytes(queue_size));
    std::ranges::fill(rings, std::byte{0});
    return DriverQueue(rings, base + index * ring_stride, queue_size);
  }
  DriverQueue set_up_queue(uint32_t index) {
    DriverQueue out = make_queue(index);
    describe_queue(index, out.layout());
    write(mmio::queue_ready, 1u);
    return out;
  }
  void driver_ok() { write(mmio::status, read(mmio::status) | mmio::driver_ok); }

  std::span<std::byte> at(uint64_t address, size_t bytes) { return bytes_of_memory().subspan(address - base, bytes); }

 private:
  // Rings need the alignment of pages.
  struct alignas(4096) Page {
    std::array<std::byte, 4096> bytes;
  };
  std::span<std::byte> bytes_of_memory() { return std::as_writable_bytes(std::span(pages_)); }

  std::vector<Page> pages_;
  std::atomic<int> raised_ = 0;
  std::shared_ptr<const virtio::GuestMemory> memory_;
  std::unique_ptr<transport::VirtioMmio> slot_;
};

}  // namespace tskata::testing
