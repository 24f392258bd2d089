// Scattered guest memory: what devices do with the pieces of a chain. No function reads or writes beyond the pieces it is given.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <span>
#include <vector>

namespace tskata::virtio {

// Copies bytes of the pieces to `out`, after the first `skip` bytes of them; how many there were.
size_t gather(std::span<const iovec> from, std::span<std::byte> out, size_t skip = 0);

// Copies `bytes` over the pieces, after the first `skip` bytes of them; how many had room.
size_t scatter(std::span<const std::byte> bytes, std::span<const iovec> to, size_t skip = 0);

// The pieces after the first `skip` bytes, at most `limit` bytes of them.
std::vector<iovec> window(std::span<const iovec> pieces, size_t skip, size_t limit);

}  // namespace tskata::virtio
