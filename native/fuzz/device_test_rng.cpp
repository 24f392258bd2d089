// Cases of the entropy device.
#include <algorithm>
#include <array>

#include "devices/rng/rng.h"
#include "fuzz/device_test.h"

namespace tskata::testing {

namespace {

std::shared_ptr<virtio::Device> make() { return std::make_shared<devices::rng::RngDevice>(); }

void gives_bytes(FrontEnd& front) {
  const Answer first = exchange(front, 0, {}, 64);
  const Answer second = exchange(front, 0, {}, 64);
  expect(first.written == 64 && second.written == 64, "the whole buffer is filled");
  expect(first.bytes != second.bytes, "no two answers are the same");
  expect(std::ranges::count(first.bytes, std::byte{0xee}) < 16, "the bytes are written");
  expect(front.interrupted(0), "the driver is interrupted");
}

void is_bounded() {
  FrontEnd front(make());
  const Answer answer = exchange(front, 0, {}, 1 << 20);
  expect(answer.written == 64 * 1024, "at most 64 KiB a request");
  const std::span rest = std::span(answer.bytes).subspan(answer.written);
  expect(std::ranges::all_of(rest, [](std::byte b) { return b == std::byte{0xee}; }), "nothing beyond what is said");
}

void many_pieces() {
  FrontEnd front(make());
  const uint64_t at = front.allocate(64);
  const std::array pieces{RingDescriptor{at, 0, flag_write, 0}, RingDescriptor{at, 3, flag_write, 0}, RingDescriptor{at + 8, 5, flag_write, 0}};
  front.queue(0).add(pieces);
  front.kick(0);
  expect(front.wait_used(0).length == 8, "all pieces are filled");
}

void stops(std::vector<RingDescriptor> (*pieces)(uint64_t)) {
  FrontEnd front(make());
  expect_stop(front, 0, pieces(front.allocate(64)));
  front.stop_queue(0);
  front.start_queue(0);
  gives_bytes(front);
}

}  // namespace

std::vector<Case> rng_cases() {
  std::vector<Case> out{
      {"rng: random bytes",
       [] {
         FrontEnd front(make());
         gives_bytes(front);
       }},
      {"rng: a request is bounded", is_bounded},
      {"rng: a buffer of many pieces", many_pieces},
      {"rng: a readable buffer", [] { stops([](uint64_t at) {
                                        return std::vector{RingDescriptor{at, 64, 0, 0}};
                                      }); }},
      {"rng: a buffer of no bytes", [] { stops([](uint64_t at) {
                                           return std::vector{RingDescriptor{at, 0, flag_write, 0}};
                                         }); }},
  };
  add_breakages(out, "rng", 0, make, gives_bytes, {{}, 64});
  return out;
}

}  // namespace tskata::testing
