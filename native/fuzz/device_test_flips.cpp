// Queues whose tables, indices and requests change while a device reads them, as another vCPU of a hostile guest would have it.
#include <algorithm>
#include <random>

#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

constexpr auto time_of_flips = std::chrono::milliseconds(700);
constexpr auto patience = std::chrono::seconds(10);
constexpr auto stuck = std::chrono::milliseconds(3);
constexpr uint16_t pairs = FrontEnd::queue_size / 2;
constexpr uint32_t most_room = 4096;

// What is right for a moment: buffer `i` is the request and some room, in descriptors 2i and 2i + 1.
class Scene {
 public:
  Scene(FrontEnd& front, size_t queue, const Sample& sample)
      : sample_(sample), sent_at_(front.allocate(std::max<size_t>(sample.request.size(), 16))), room_at_(front.allocate(most_room)) {
    rings_ = front.at(front.queue(queue).layout().descriptors, DriverQueue::bytes(FrontEnd::queue_size));
    sent_ = front.at(sent_at_, std::max<size_t>(sample.request.size(), 16));
    restore();
  }

  void restore() {
    std::ranges::copy(sample_.request, sent_.begin());
    for (uint16_t i = 0; i < pairs; ++i) restore(i);
  }

  // One thing that a driver must not do; the bytes are shared with the device's threads, as a guest's memory is.
  void flip(std::minstd_rand& random) {
    const auto any = [&random](auto limit) { return static_cast<decltype(limit)>(random() % limit); };
    const uint16_t index = any(FrontEnd::queue_size);
    switch (any(8u)) {
      case 0: return put(16u * index, uint64_t{random()} << any(40u));
      case 1: return put(16u * index + 8, std::array<uint32_t, 6>{0, 1, 15, most_room, 1u << 20, UINT32_MAX}[any(6u)]);
      case 2: return put(16u * index + 12, static_cast<uint16_t>(any(8u)));
      case 3: return put(16u * index + 14, static_cast<uint16_t>(any(2u) == 0 ? any(64u) : random()));
      case 4: return put(available + 4 + 2u * index, static_cast<uint16_t>(any(4u) == 0 ? random() : any(64u)));
      case 5: return put(available + 2, static_cast<uint16_t>(random()));
      case 6: sent_[any(sent_.size())] = static_cast<std::byte>(random()); return;
      default: return restore();
    }
  }

 private:
  static constexpr size_t available = 16u * FrontEnd::queue_size;

  void restore(uint16_t i) {
    const uint16_t head = static_cast<uint16_t>(2 * i);
    const RingDescriptor out{room_at_, sample_.room, flag_write, 0};
    const uint16_t more = sample_.room > 0 ? flag_next : 0;
    const RingDescriptor in{sent_at_, static_cast<uint32_t>(sample_.request.size()), more, static_cast<uint16_t>(head + 1)};
    put(16u * head, sample_.request.empty() ? out : in);
    put(16u * (head + 1u), out);
    put(available + 4 + 2u * i, head);
    put(available + 4 + 2u * (i + pairs), head);
  }
  template <typename T>
  void put(size_t offset, const T& value) {
    std::memcpy(rings_.data() + offset, &value, sizeof value);
  }

  const Sample& sample_;
  uint64_t sent_at_, room_at_;
  std::span<std::byte> rings_, sent_;
};

}  // namespace

void flip_tables(FrontEnd& front, size_t queue, const Sample& sample) {
  Scene scene(front, queue, sample);
  std::minstd_rand random(7);
  size_t served = 0;
  size_t stopped = 0;
  const auto end = std::chrono::steady_clock::now() + time_of_flips;
  // On a machine that is busy until the device has had its turn.
  for (auto now = end - time_of_flips; now < end || (served == 0 && now < end + patience); now = std::chrono::steady_clock::now()) {
    scene.restore();
    {
      const std::jthread other([&scene, seed = random()](const std::stop_token& done) {
        std::minstd_rand own(seed);
        while (!done.stop_requested()) scene.flip(own);
      });
      uint16_t seen = front.queue(queue).used_index();
      for (auto progress = std::chrono::steady_clock::now(); std::chrono::steady_clock::now() < progress + stuck;) {
        front.queue(queue).set_available_index(static_cast<uint16_t>(seen + pairs));
        front.kick(queue);
        std::this_thread::yield();
        const uint16_t used = front.queue(queue).used_index();
        if (used == seen) continue;
        served += static_cast<uint16_t>(used - seen);
        seen = used;
        progress = std::chrono::steady_clock::now();
        if (progress > end) break;
      }
    }
    ++stopped;
    front.stop_queue(queue);
    front.start_queue(queue);
  }
  expect(served > 0, "requests were served meanwhile");
  expect(stopped > 0, "and the queue broken");
}

}  // namespace tskata::testing
