// What a virtio-blk request is made of (virtio 1.2 §5.2.6), and its constants.
#pragma once
#include <cstdint>

namespace tskata::devices::blk {

constexpr uint64_t sector_bytes = 512;  // of the protocol, whatever the disk's own blocks are

struct RequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(RequestHeader) == 16);

// The data of DISCARD and WRITE_ZEROES: any number of these up to what the configuration says.
struct Segment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(Segment) == 16);
constexpr uint32_t segment_unmap = 1;

enum Type : uint32_t {
  type_in = 0,
  type_out = 1,
  type_flush = 4,
  type_get_id = 8,
  type_discard = 11,
  type_write_zeroes = 13,
};

enum class Status : uint8_t { ok = 0, failed = 1, unsupported = 2 };

// §5.2.3
constexpr uint64_t feature_seg_max = 1ull << 2;
constexpr uint64_t feature_ro = 1ull << 5;
constexpr uint64_t feature_blk_size = 1ull << 6;
constexpr uint64_t feature_flush = 1ull << 9;
constexpr uint64_t feature_discard = 1ull << 13;
constexpr uint64_t feature_write_zeroes = 1ull << 14;

// §5.2.4, up to the last field of a feature that is offered.
#pragma pack(push, 1)
struct Config {
  uint64_t capacity;
  uint32_t size_max;
  uint32_t seg_max;
  uint8_t geometry[4];
  uint32_t blk_size;
  uint8_t topology[8];
  uint8_t writeback;
  uint8_t unused;
  uint16_t num_queues;
  uint32_t max_discard_sectors;
  uint32_t max_discard_seg;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused_end[3];
};
#pragma pack(pop)
static_assert(sizeof(Config) == 60);

}  // namespace tskata::devices::blk
