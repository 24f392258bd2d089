// What a request does to the disk, one system call after the other: made by a thread that waits for each, or handed to a ring.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace tskata::devices::blk {

// A call on the disk's file.
struct Call {
  enum class Kind : uint8_t { read, write, sync, allocate };
  Kind kind;
  uint64_t offset = 0;
  uint64_t length = 0;        // of an allocation
  std::vector<iovec> pieces;  // of a read or write: all that is left, which may be more than one call takes
  int flags = 0;              // RWF_* of a write; mode of an allocation
  bool zeroes = false;        // an allocation that must leave zeroes; others may as well leave the range as it is
};

// Ranges are bytes that the caller has held against the size.
class Work {
 public:
  void read(uint64_t offset, std::vector<iovec> to);
  // `durable`: on the medium when it is done.
  void write(uint64_t offset, std::vector<iovec> from, bool durable);
  void flush();
  // The range reads as zeroes afterwards, and takes no room where the filesystem can do that.
  void discard(uint64_t offset, uint64_t length);
  // `unmap`: the range may lose its room.
  void write_zeroes(uint64_t offset, uint64_t length, bool unmap);

  void clear();

  // The call to make now; none when there is nothing left to do.
  const Call* next() const { return calls_.empty() ? nullptr : &calls_.front(); }
  // What it has come to: what the call returns, or a negative errno.
  void returned(int64_t result);
  bool failed() const { return failed_; }

 private:
  void moved(int64_t result);
  void allocated(int64_t result);
  void settle(bool done);

  std::deque<Call> calls_;
  bool failed_ = false;
};

}  // namespace tskata::devices::blk
