// virtio-pmem: the flush queue.
#include "devices/pmem/pmem.h"

#include <array>
#include <stdexcept>

#include "virtio/pieces.h"

namespace tskata::devices::pmem {

namespace {

constexpr uint64_t page_bytes = 4096;
constexpr uint32_t request_flush = 0;  // §5.19.6
constexpr uint32_t answer_ok = 0;
constexpr uint32_t answer_failed = UINT32_MAX;  // -1

}  // namespace

PmemDevice::PmemDevice(PmemOptions options) : options_(std::move(options)) {
  const bool whole = options_.guest_address % page_bytes == 0 && options_.size % page_bytes == 0 && options_.size != 0;
  if (!whole) throw std::invalid_argument("pmem range must be of whole pages");
  if (options_.guest_address + options_.size < options_.size) throw std::invalid_argument("pmem range wraps the address space");
}

void PmemDevice::read_config(size_t offset, std::span<std::byte> out) const {
  const std::array config{options_.guest_address, options_.size};  // §5.19.4: start, size
  virtio::copy_config(std::as_bytes(std::span(config)), offset, out);
}

void PmemDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  worker_ = std::make_unique<virtio::QueueWorkers>("pmem", std::move(queue), 1,
                                                   virtio::QueueWorkers::each([this](const virtio::Chain& chain) { return serve(chain); }));
}

void PmemDevice::stop_queue(size_t) { worker_.reset(); }

size_t PmemDevice::serve(const virtio::Chain& chain) const {
  uint32_t request = 0;
  uint32_t answer = answer_failed;
  if (chain.writable_bytes < sizeof answer) throw virtio::QueueFault("pmem request without room for its answer");
  const bool whole = virtio::gather(chain.readable, std::as_writable_bytes(std::span(&request, 1))) == sizeof request;
  if (whole && request == request_flush) {
    // The driver's stores went to the file's own pages, so the file's data is what there is to make last (§5.19.6.1).
    answer = options_.file && ::fdatasync(options_.file.get()) != 0 ? answer_failed : answer_ok;
  }
  return virtio::scatter(std::as_bytes(std::span(&answer, 1)), chain.writable);
}

}  // namespace tskata::devices::pmem
