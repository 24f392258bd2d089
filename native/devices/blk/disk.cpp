// System calls on a disk's file.
#include "devices/blk/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <climits>
#include <stdexcept>

namespace tskata::devices::blk {

namespace {

using os::checked;

// One call takes so many pieces, and 2 GiB; and may move less.
unsigned piece_count(const Call& call) { return static_cast<unsigned>(std::min<size_t>(call.pieces.size(), IOV_MAX)); }

int64_t make_once(int fd, const Call& call) {
  const auto count = static_cast<int>(piece_count(call));
  const auto offset = static_cast<off_t>(call.offset);
  switch (call.kind) {
    case Call::Kind::read: return ::preadv(fd, call.pieces.data(), count, offset);
    case Call::Kind::write: return ::pwritev2(fd, call.pieces.data(), count, offset, call.flags);
    case Call::Kind::sync: return ::fdatasync(fd);
    case Call::Kind::allocate: return ::fallocate(fd, call.flags, offset, static_cast<off_t>(call.length));
  }
  return -1;
}

}  // namespace

os::Descriptor open_disk(const std::string& path, bool readonly) {
  os::Descriptor out(checked(::open(path.c_str(), (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK), "open disk"));
  // Of no use for a disk, and in a ring it would keep the kernel from waiting for one.
  checked(::fcntl(out.get(), F_SETFL, readonly ? O_RDONLY : O_RDWR), "fcntl disk");
  return out;
}

Disk::Disk(os::Descriptor file, bool readonly) : file_(std::move(file)), readonly_(readonly) {
  struct stat status {};
  checked(::fstat(file_.get(), &status), "fstat disk");
  if (S_ISREG(status.st_mode)) {
    bytes_ = static_cast<uint64_t>(status.st_size);
  } else if (S_ISBLK(status.st_mode)) {
    checked(::ioctl(file_.get(), BLKGETSIZE64, &bytes_), "BLKGETSIZE64");
    int block = 0;
    checked(::ioctl(file_.get(), BLKSSZGET, &block), "BLKSSZGET");
    block_bytes_ = static_cast<uint32_t>(block);
  } else {
    throw std::invalid_argument("a disk is a regular file or a block device");
  }
}

int64_t Disk::make(const Call& call) const {
  const int64_t result = make_once(file_.get(), call);
  return result < 0 ? -errno : result;
}

std::unique_ptr<os::IoRing> Disk::make_ring() const {
  constexpr std::array<uint8_t, 4> calls{IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE};
  return os::IoRing::make(file_.get(), readonly_ ? std::span(calls).first(1) : std::span(calls));
}

io_uring_sqe for_ring(const Call& call) {
  io_uring_sqe out{};
  out.off = call.offset;
  switch (call.kind) {
    case Call::Kind::read:
    case Call::Kind::write:
      out.opcode = call.kind == Call::Kind::read ? IORING_OP_READV : IORING_OP_WRITEV;
      out.addr = reinterpret_cast<uintptr_t>(call.pieces.data());
      out.len = piece_count(call);
      out.rw_flags = static_cast<uint32_t>(call.flags);
      break;
    case Call::Kind::sync:
      out.opcode = IORING_OP_FSYNC;
      out.fsync_flags = IORING_FSYNC_DATASYNC;
      break;
    case Call::Kind::allocate:
      out.opcode = IORING_OP_FALLOCATE;
      out.addr = call.length;
      out.len = static_cast<uint32_t>(call.flags);
      break;
  }
  return out;
}

}  // namespace tskata::devices::blk
