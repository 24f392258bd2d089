// Copies between scattered guest memory and our own, by the lengths that the queue has checked.
#include "virtio/pieces.h"

#include <algorithm>
#include <cstring>

namespace tskata::virtio {

size_t gather(std::span<const iovec> from, std::span<std::byte> out, size_t skip) {
  size_t done = 0;
  for (const iovec& piece : from) {
    if (done == out.size()) break;
    const size_t skipped = std::min(skip, piece.iov_len);
    skip -= skipped;
    const size_t length = std::min(piece.iov_len - skipped, out.size() - done);
    if (length == 0) continue;
    std::memcpy(out.data() + done, static_cast<const std::byte*>(piece.iov_base) + skipped, length);
    done += length;
  }
  return done;
}

size_t scatter(std::span<const std::byte> bytes, std::span<const iovec> to, size_t skip) {
  size_t done = 0;
  for (const iovec& piece : to) {
    const size_t skipped = std::min(skip, piece.iov_len);
    skip -= skipped;
    const size_t length = std::min(piece.iov_len - skipped, bytes.size() - done);
    if (length == 0) continue;
    std::memcpy(static_cast<std::byte*>(piece.iov_base) + skipped, bytes.data() + done, length);
    done += length;
  }
  return done;
}

std::vector<iovec> window(std::span<const iovec> pieces, size_t skip, size_t limit) {
  std::vector<iovec> out;
  for (const iovec& piece : pieces) {
    const size_t skipped = std::min(skip, piece.iov_len);
    skip -= skipped;
    const size_t length = std::min(piece.iov_len - skipped, limit);
    if (length == 0) continue;
    limit -= length;
    out.push_back({static_cast<std::byte*>(piece.iov_base) + skipped, length});
  }
  return out;
}

}  // namespace tskata::virtio
