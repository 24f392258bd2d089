// The file or block device behind a virtio-blk device.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "devices/blk/work.h"
#include "linux/descriptor.h"
#include "linux/io_ring.h"

namespace tskata::devices::blk {

// Thread-safe: the descriptor's own position is never used.
class Disk {
 public:
  // Throws std::invalid_argument when it is neither a regular file nor a block device.
  Disk(os::Descriptor file, bool readonly);

  uint64_t bytes() const { return bytes_; }
  uint32_t block_bytes() const { return block_bytes_; }
  bool readonly() const { return readonly_; }

  // Makes the call and waits for it: what it returns, or a negative errno.
  int64_t make(const Call& call) const;

  // A ring for calls on this file; nothing where there are none.
  std::unique_ptr<os::IoRing> make_ring() const;

 private:
  os::Descriptor file_;
  bool readonly_;
  uint64_t bytes_ = 0;
  uint32_t block_bytes_ = 512;
};

// The call as a ring takes it.
io_uring_sqe for_ring(const Call& call);

// Opens the file of a disk; never waits, as opening a pipe would.
os::Descriptor open_disk(const std::string& path, bool readonly);

}  // namespace tskata::devices::blk
