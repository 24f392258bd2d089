// virtio-rng: getrandom straight into the guest's buffers.
#include "devices/rng/rng.h"

#include <sys/random.h>

#include "virtio/pieces.h"

namespace tskata::devices::rng {

namespace {

// A guest may offer gigabytes in one buffer; the device may fill as little as a byte of it (§5.4.6.2). Linux asks for 64 at a time.
constexpr size_t max_request = 64 * 1024;

void fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
    if (got > 0) out = out.subspan(static_cast<size_t>(got));
  }
}

size_t serve(const virtio::Chain& chain) {
  if (chain.readable_bytes != 0) throw virtio::QueueFault("readable buffer on the entropy queue");  // §5.4.6.1
  if (chain.writable_bytes == 0) throw virtio::QueueFault("entropy buffer of no bytes");
  size_t written = 0;
  for (const iovec& piece : virtio::window(chain.writable, 0, max_request)) {
    fill({static_cast<std::byte*>(piece.iov_base), piece.iov_len});
    written += piece.iov_len;
  }
  return written;
}

}  // namespace

void RngDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  worker_ = std::make_unique<virtio::QueueWorkers>("rng", std::move(queue), 1, virtio::QueueWorkers::each(serve));
}

void RngDevice::stop_queue(size_t) { worker_.reset(); }

}  // namespace tskata::devices::rng
