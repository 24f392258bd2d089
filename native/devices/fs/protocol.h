// FUSE beyond the header of Debian 12, which has protocol 7.38: FUSE_STATX of 7.39, and what our guest kernel says of itself (guest-kernel/patches).
#pragma once
#include <cstdint>

namespace tskata::devices::fs {

constexpr uint32_t opcode_statx = 52;
// INIT's flags2 (bit 62 of all), not Linux's: before it sends FUSE_LSEEK the kernel writes back what it has kept.
constexpr uint32_t flag2_lseek_writes_back = 1u << 30;
// Bit 61: for the sake of lookups the kernel reads a folder that it has not opened, by READDIRPLUS without a handle.
constexpr uint32_t flag2_lookup_plus = 1u << 29;
constexpr uint64_t no_handle = 0;
// Bit 60: after ENFILE the kernel forgets the names that nobody uses and asks again. So a request that is answered so has changed nothing.
constexpr uint32_t flag2_enfile_forgets = 1u << 28;
// fuse_attr's flags, likewise not Linux's: what SETATTR was answered with is not the inode's attributes from now on.
constexpr uint32_t attribute_unchanged = 1u << 31;

struct StatxIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};

struct StatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};

struct StatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  StatxTime atime;
  StatxTime btime;
  StatxTime ctime;
  StatxTime mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(StatxIn) == 24 && sizeof(StatxOut) == 288);

}  // namespace tskata::devices::fs
