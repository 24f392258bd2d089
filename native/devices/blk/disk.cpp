// Reads, writes and holes of a disk's file.
#include "devices/blk/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <climits>
#include <stdexcept>

#include "virtio/pieces.h"

namespace tskata::devices::blk {

namespace {

using os::checked;

size_t total(std::span<const iovec> pieces) {
  size_t out = 0;
  for (const iovec& piece : pieces) out += piece.iov_len;
  return out;
}

// Calls until all pieces are through: one call takes IOV_MAX pieces or 2 GiB, and may take less.
template <typename Call>
bool transfer(std::span<const iovec> pieces, uint64_t offset, Call&& call) {
  const size_t length = total(pieces);
  for (size_t done = 0; done < length;) {
    const std::vector<iovec> rest = virtio::window(pieces, done, length - done);
    const ssize_t moved = call(rest.data(), static_cast<int>(std::min<size_t>(rest.size(), IOV_MAX)), static_cast<off_t>(offset + done));
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return false;  // nothing: the file has become shorter than the disk
    done += static_cast<size_t>(moved);
  }
  return true;
}

bool change_allocation(int fd, int mode, uint64_t offset, uint64_t length) {
  int result;
  do result = ::fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length));
  while (result != 0 && errno == EINTR);
  return result == 0;
}

}  // namespace

os::Descriptor open_disk(const std::string& path, bool readonly) {
  return os::Descriptor(checked(::open(path.c_str(), (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK), "open disk"));
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

bool Disk::read(uint64_t offset, std::span<const iovec> to) const {
  return transfer(to, offset, [this](const iovec* pieces, int count, off_t at) { return ::preadv(file_.get(), pieces, count, at); });
}

bool Disk::write(uint64_t offset, std::span<const iovec> from, bool durable) const {
  const int flags = durable ? RWF_DSYNC : 0;
  return transfer(from, offset, [&](const iovec* pieces, int count, off_t at) { return ::pwritev2(file_.get(), pieces, count, at, flags); });
}

bool Disk::flush() const { return readonly_ || ::fdatasync(file_.get()) == 0; }

bool Disk::discard(uint64_t offset, uint64_t length) const {
  // Where there are no holes the range stays as it is, which a discard allows (§5.2.6.2: what is read there is undefined).
  return change_allocation(file_.get(), FALLOC_FL_PUNCH_HOLE, offset, length) || errno == EOPNOTSUPP;
}

bool Disk::write_zeroes(uint64_t offset, uint64_t length, bool unmap) const {
  if (unmap && change_allocation(file_.get(), FALLOC_FL_PUNCH_HOLE, offset, length)) return true;
  if (change_allocation(file_.get(), FALLOC_FL_ZERO_RANGE, offset, length)) return true;
  return errno == EOPNOTSUPP && overwrite(offset, length);
}

bool Disk::overwrite(uint64_t offset, uint64_t length) const {
  static const std::array<std::byte, 64 * 1024> zeroes{};
  for (uint64_t done = 0; done < length;) {
    const iovec piece{const_cast<std::byte*>(zeroes.data()), std::min<uint64_t>(zeroes.size(), length - done)};
    if (!write(offset + done, std::span(&piece, 1), false)) return false;
    done += piece.iov_len;
  }
  return true;
}

}  // namespace tskata::devices::blk
