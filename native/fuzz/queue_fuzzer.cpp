// Fuzzes descriptor chains: guest memory, rings and all, is the input; the device pops, touches every byte it was given, pushes.
//
// Input: 2 bytes of parameters, then guest memory. The memory is a heap block, so AddressSanitizer sees a byte beyond it.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "virtio/queue.h"

namespace {

using namespace tskata::virtio;

constexpr uint64_t first_base = 0x1000;
constexpr uint64_t second_base = 0x100000;
constexpr size_t second_bytes = 512;
constexpr size_t max_pops = 64;

void require(bool holds) {
  if (!holds) std::abort();
}

// 16-aligned as mmap gives it, of exactly this length.
std::byte* guest_bytes(size_t size) {
  void* out = nullptr;
  require(::posix_memalign(&out, 16, size) == 0);
  std::memset(out, 0, size);
  return static_cast<std::byte*>(out);
}

bool inside(const GuestMemory& memory, const iovec& piece) {
  for (const uint64_t base : {first_base, second_base}) {
    const auto start = memory.slice(base, 1);
    if (!start) continue;
    const auto* const data = static_cast<const std::byte*>(piece.iov_base);
    if (data < start->data()) continue;
    if (memory.slice(base + static_cast<uint64_t>(data - start->data()), piece.iov_len)) return true;
  }
  return false;
}

// What every device relies on.
void check(const GuestMemory& memory, const Chain& chain) {
  size_t readable = 0;
  for (const iovec& piece : chain.readable) {
    require(piece.iov_len > 0 && inside(memory, piece));
    readable += piece.iov_len;
  }
  size_t writable = 0;
  for (const iovec& piece : chain.writable) {
    require(piece.iov_len > 0 && inside(memory, piece));
    writable += piece.iov_len;
  }
  require(readable == chain.readable_bytes && writable == chain.writable_bytes);
}

// A device that answers by what it was sent. Writing may overwrite the very rings it is served from, as a guest may arrange.
void serve(const Chain& chain) {
  unsigned char sum = 0;
  for (const iovec& piece : chain.readable) {
    for (size_t i = 0; i < piece.iov_len; ++i) sum = static_cast<unsigned char>(sum + static_cast<const unsigned char*>(piece.iov_base)[i]);
  }
  for (const iovec& piece : chain.writable) std::memset(piece.iov_base, sum, piece.iov_len);
}

void run(Queue& queue, const GuestMemory& memory) {
  Chain chain;
  for (size_t i = 0; i < max_pops; ++i) {
    queue.disable_notifications();
    if (!queue.pop(chain)) {
      if (!queue.enable_notifications()) return;
      continue;
    }
    check(memory, chain);
    if (i == 0) {  // what a device with nothing to say does: the same buffer comes again
      const uint16_t head = chain.head;
      queue.unpop();
      require(queue.pop(chain) && chain.head == head);
    }
    serve(chain);
    queue.push(chain.head, static_cast<uint32_t>(chain.writable_bytes));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const uint8_t shape = data[0];
  const uint8_t start = data[1];
  data += 2;
  size -= 2;
  std::byte* const first = guest_bytes(size);
  std::byte* const second = guest_bytes(second_bytes);
  std::memcpy(first, data, size);
  const uint16_t queue_size = static_cast<uint16_t>(1u << (shape & 3)) * 4;
  const QueueLayout layout{queue_size, first_base, first_base + 16u * queue_size, first_base + 16u * queue_size + 96};
  const uint64_t features = ((shape & 4) != 0 ? feature_indirect_desc : 0) | ((shape & 8) != 0 ? feature_event_idx : 0);
  try {
    const auto memory =
        std::make_shared<const GuestMemory>(std::vector<MemoryRegion>{{second_base, {second, second_bytes}}, {first_base, {first, size}}});
    Queue queue(memory, layout, features, start);
    run(queue, *memory);
  } catch (const QueueFault&) {
    // the device would stop the queue
  }
  std::free(first);
  std::free(second);
  return 0;
}
