// virtio-blk: requests, each checked whole before the disk is touched.
#include "devices/blk/blk.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "devices/blk/ring_worker.h"
#include "virtio/pieces.h"

namespace tskata::devices::blk {

namespace {

constexpr size_t id_bytes = 20;     // §5.2.6
constexpr size_t status_bytes = 1;  // the last byte of the writable part
// A whole queue's worth less header and status; Linux puts more into an indirect table.
constexpr uint32_t max_segments = 254;
// Far beyond what drivers send (Linux: 1.25 MiB unless told otherwise). Pieces may name the same memory again and again, and stop_queue
// waits for a request that is being served.
constexpr size_t max_transfer = 1ull << 30;
constexpr uint32_t max_clear_segments = 32;
constexpr uint32_t max_discard_sectors = 1u << 22;  // 2 GiB: a hole costs no writing
constexpr uint32_t max_zeroes_sectors = 1u << 15;   // 16 MiB: may have to be written

size_t data_in(const virtio::Chain& chain) { return chain.writable_bytes - status_bytes; }
size_t data_out(const virtio::Chain& chain) { return chain.readable_bytes - sizeof(RequestHeader); }

}  // namespace

BlkDevice::BlkDevice(BlkOptions options)
    : disk_(std::move(options.file), options.readonly),
      ring_(options.ring ? disk_.make_ring() : nullptr),
      id_(std::move(options.id)),
      threads_(options.threads) {
  if (id_.size() > id_bytes) throw std::invalid_argument("disk id has more than 20 bytes");
}

uint64_t BlkDevice::features() const {
  constexpr uint64_t always = feature_seg_max | feature_blk_size | virtio::feature_indirect_desc | virtio::feature_event_idx;
  // A read-only disk has nothing to flush, and must not offer what changes it.
  return always | (disk_.readonly() ? feature_ro : feature_flush | feature_discard | feature_write_zeroes);
}

void BlkDevice::read_config(size_t offset, std::span<std::byte> out) const {
  Config config{};
  config.capacity = disk_.bytes() / sector_bytes;
  config.seg_max = max_segments;
  config.blk_size = disk_.block_bytes();
  config.num_queues = 1;
  if (!disk_.readonly()) {
    config.max_discard_sectors = max_discard_sectors;
    config.max_discard_seg = max_clear_segments;
    config.discard_sector_alignment = static_cast<uint32_t>(disk_.block_bytes() / sector_bytes);
    config.max_write_zeroes_sectors = max_zeroes_sectors;
    config.max_write_zeroes_seg = max_clear_segments;
    config.write_zeroes_may_unmap = 1;
  }
  virtio::copy_config(std::as_bytes(std::span(&config, 1)), offset, out);
}

void BlkDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  workers_ = std::make_unique<virtio::QueueWorkers>("blk", std::move(queue), has_ring() ? 1 : threads_, has_ring() ? by_ring() : by_threads());
}

void BlkDevice::stop_queue(size_t) { workers_.reset(); }

virtio::QueueWorkers::Body BlkDevice::by_ring() const {
  return [this, accepted = accepted_](virtio::QueueReader& reader) {
    const auto begin_one = [&](const virtio::Chain& chain, Work& work) { return begin(chain, accepted, work); };
    const auto finish_one = [&](const virtio::Chain& chain, Status status) { return finish(chain, status); };
    RingWorker(*ring_, disk_, begin_one, finish_one).run(reader);
  };
}

virtio::QueueWorkers::Body BlkDevice::by_threads() const {
  return virtio::QueueWorkers::each([this, accepted = accepted_](const virtio::Chain& chain) {
    Work work;
    const Status status = begin(chain, accepted, work);
    while (const Call* const call = work.next()) work.returned(disk_.make(*call));
    return finish(chain, work.failed() ? Status::failed : status);
  });
}

Status BlkDevice::begin(const virtio::Chain& chain, uint64_t accepted, Work& work) const {
  if (chain.writable_bytes < status_bytes) throw virtio::QueueFault("request without room for its status");
  RequestHeader header{};
  const bool whole = virtio::gather(chain.readable, std::as_writable_bytes(std::span(&header, 1))) == sizeof header;
  const Status status = whole ? plan(header, chain, accepted, work) : Status::failed;
  if (status != Status::ok) work.clear();  // a request that is refused changes nothing
  return status;
}

size_t BlkDevice::finish(const virtio::Chain& chain, Status status) const {
  virtio::scatter(std::as_bytes(std::span(&status, 1)), chain.writable, data_in(chain));
  // §2.7.8.2: the length counts from the buffer's first byte, and of a failed read nobody knows how far it came.
  return status == Status::ok || data_in(chain) == 0 ? chain.writable_bytes : 0;
}

Status BlkDevice::plan(const RequestHeader& header, const virtio::Chain& chain, uint64_t accepted, Work& work) const {
  // §5.2.6.2: without FLUSH the driver cannot ask, so what it has written must last when it is told of it.
  const bool durable = (accepted & feature_flush) == 0;
  const auto is_accepted = [&](uint64_t feature) { return (accepted & feature) != 0; };
  switch (header.type) {
    case type_in: return read(header.sector, chain, work);
    case type_out: return write(header.sector, chain, durable, work);
    case type_flush: return flush(work);
    case type_get_id: return give_id(chain);
    case type_discard: return is_accepted(feature_discard) ? clear(header.type, chain, durable, work) : Status::unsupported;
    case type_write_zeroes: return is_accepted(feature_write_zeroes) ? clear(header.type, chain, durable, work) : Status::unsupported;
    default: return Status::unsupported;
  }
}

// Whether so many bytes from a sector on are whole sectors of the disk.
bool BlkDevice::inside(uint64_t sector, uint64_t bytes) const {
  const uint64_t capacity = disk_.bytes() / sector_bytes;
  return bytes % sector_bytes == 0 && sector <= capacity && bytes / sector_bytes <= capacity - sector;
}

Status BlkDevice::read(uint64_t sector, const virtio::Chain& chain, Work& work) const {
  const size_t length = data_in(chain);
  if (length > max_transfer || !inside(sector, length)) return Status::failed;
  work.read(sector * sector_bytes, virtio::window(chain.writable, 0, length));
  return Status::ok;
}

Status BlkDevice::write(uint64_t sector, const virtio::Chain& chain, bool durable, Work& work) const {
  const size_t length = data_out(chain);
  if (disk_.readonly() || length > max_transfer || !inside(sector, length)) return Status::failed;
  work.write(sector * sector_bytes, virtio::window(chain.readable, sizeof(RequestHeader), length), durable);
  return Status::ok;
}

Status BlkDevice::flush(Work& work) const {
  if (!disk_.readonly()) work.flush();
  return Status::ok;
}

Status BlkDevice::give_id(const virtio::Chain& chain) const {
  if (data_in(chain) != id_bytes) return Status::failed;
  std::array<std::byte, id_bytes> out{};  // no terminator when all bytes are used
  std::ranges::copy(std::as_bytes(std::span(id_)), out.begin());
  virtio::scatter(out, chain.writable);
  return Status::ok;
}

Status BlkDevice::clear(uint32_t type, const virtio::Chain& chain, bool durable, Work& work) const {
  const size_t length = data_out(chain);
  if (disk_.readonly() || length == 0 || length % sizeof(Segment) != 0 || length > max_clear_segments * sizeof(Segment)) return Status::failed;
  // Copied first: a segment checked in guest memory may be another by the time it is used.
  std::array<std::byte, sizeof(RequestHeader) + max_clear_segments * sizeof(Segment)> copy;
  virtio::gather(chain.readable, copy);
  for (size_t at = sizeof(RequestHeader); at < sizeof(RequestHeader) + length; at += sizeof(Segment)) {
    Segment segment;
    std::memcpy(&segment, copy.data() + at, sizeof segment);
    const Status status = clear_segment(type, segment, work);
    if (status != Status::ok) return status;
  }
  if (durable) work.flush();
  return Status::ok;
}

Status BlkDevice::clear_segment(uint32_t type, const Segment& segment, Work& work) const {
  const bool zeroes = type == type_write_zeroes;
  // §5.2.6.2: unknown flags, and unmap where it means nothing, are unsupported.
  if ((segment.flags & ~(zeroes ? segment_unmap : 0u)) != 0) return Status::unsupported;
  const uint64_t length = segment.sectors * sector_bytes;
  if (segment.sectors > (zeroes ? max_zeroes_sectors : max_discard_sectors) || !inside(segment.sector, length)) return Status::failed;
  if (length == 0) return Status::ok;
  const uint64_t offset = segment.sector * sector_bytes;
  if (zeroes) work.write_zeroes(offset, length, (segment.flags & segment_unmap) != 0);
  else work.discard(offset, length);
  return Status::ok;
}

}  // namespace tskata::devices::blk
