// From one call to the next.
#include "devices/blk/work.h"

#include <fcntl.h>
#include <linux/fs.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace tskata::devices::blk {

namespace {

constexpr int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int zeroed_room = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

// The same zeroes again and again.
std::vector<iovec> zero_pieces(uint64_t length) {
  static std::array<std::byte, 64 * 1024> zeroes{};
  std::vector<iovec> out;
  for (uint64_t done = 0; done < length; done += out.back().iov_len) out.push_back({zeroes.data(), std::min<uint64_t>(zeroes.size(), length - done)});
  return out;
}

void drop_front(std::vector<iovec>& pieces, size_t bytes) {
  const auto whole = std::ranges::find_if(pieces, [&](const iovec& piece) {
    if (bytes < piece.iov_len) return true;
    bytes -= piece.iov_len;
    return false;
  });
  pieces.erase(pieces.begin(), whole);
  if (bytes == 0) return;
  pieces.front().iov_base = static_cast<std::byte*>(pieces.front().iov_base) + bytes;
  pieces.front().iov_len -= bytes;
}

}  // namespace

void Work::read(uint64_t offset, std::vector<iovec> to) {
  if (!to.empty()) calls_.push_back({Call::Kind::read, offset, 0, std::move(to)});
}

void Work::write(uint64_t offset, std::vector<iovec> from, bool durable) {
  if (!from.empty()) calls_.push_back({Call::Kind::write, offset, 0, std::move(from), durable ? RWF_DSYNC : 0});
}

void Work::flush() { calls_.push_back({Call::Kind::sync, 0, 0, {}}); }

void Work::discard(uint64_t offset, uint64_t length) { calls_.push_back({Call::Kind::allocate, offset, length, {}, hole}); }

void Work::write_zeroes(uint64_t offset, uint64_t length, bool unmap) {
  calls_.push_back({Call::Kind::allocate, offset, length, {}, unmap ? hole : zeroed_room, true});
}

void Work::clear() {
  calls_.clear();
  failed_ = false;
}

void Work::returned(int64_t result) {
  if (result == -EINTR) return;  // once more
  switch (calls_.front().kind) {
    case Call::Kind::read:
    case Call::Kind::write: return moved(result);
    case Call::Kind::sync: return settle(result >= 0);
    case Call::Kind::allocate: return allocated(result);
  }
}

// A call may move less than was asked for. Nothing: the file has become shorter than the disk.
void Work::moved(int64_t result) {
  if (result <= 0) return settle(false);
  Call& call = calls_.front();
  drop_front(call.pieces, static_cast<size_t>(result));
  call.offset += static_cast<uint64_t>(result);
  if (call.pieces.empty()) settle(true);
}

void Work::allocated(int64_t result) {
  Call& call = calls_.front();
  if (result >= 0) return settle(true);
  // Where there are no holes the range stays as it is, which a discard allows (§5.2.6.2: what is read there is undefined).
  if (!call.zeroes) return settle(result == -EOPNOTSUPP);
  if (call.flags == hole) {
    call.flags = zeroed_room;
    return;
  }
  if (result != -EOPNOTSUPP) return settle(false);
  call = {Call::Kind::write, call.offset, 0, zero_pieces(call.length)};
}

void Work::settle(bool done) {
  if (done) return calls_.pop_front();
  calls_.clear();
  failed_ = true;
}

}  // namespace tskata::devices::blk
