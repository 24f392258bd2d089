// The file or block device behind a virtio-blk device.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "linux/descriptor.h"

namespace tskata::devices::blk {

// Every call says whether it did all that was asked; ranges are bytes and the caller has held them against the size. Thread-safe:
// the descriptor's own position is never used.
class Disk {
 public:
  // Throws std::invalid_argument when it is neither a regular file nor a block device.
  Disk(os::Descriptor file, bool readonly);

  uint64_t bytes() const { return bytes_; }
  uint32_t block_bytes() const { return block_bytes_; }
  bool readonly() const { return readonly_; }

  bool read(uint64_t offset, std::span<const iovec> to) const;
  // `durable`: on the medium when it returns.
  bool write(uint64_t offset, std::span<const iovec> from, bool durable) const;
  bool flush() const;
  // The range reads as zeroes afterwards, and takes no room where the filesystem can do that.
  bool discard(uint64_t offset, uint64_t length) const;
  // `unmap`: the range may lose its room.
  bool write_zeroes(uint64_t offset, uint64_t length, bool unmap) const;

 private:
  bool overwrite(uint64_t offset, uint64_t length) const;

  os::Descriptor file_;
  bool readonly_;
  uint64_t bytes_ = 0;
  uint32_t block_bytes_ = 512;
};

// Opens the file of a disk; never waits, as opening a pipe would.
os::Descriptor open_disk(const std::string& path, bool readonly);

}  // namespace tskata::devices::blk
