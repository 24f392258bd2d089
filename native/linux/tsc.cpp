// Measures the time stamp counter: QEMU's TCG gives a guest the host's.
#include "linux/tsc.h"

#include <time.h>

#include <limits>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace tskata::os {

#if defined(__x86_64__)

namespace {

struct Sample {
  uint64_t ticks;
  uint64_t nanoseconds;
};

uint64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

// The tightest of a few pairs of readings: one that was interrupted between the two is late.
Sample sample() {
  Sample best{};
  uint64_t least = std::numeric_limits<uint64_t>::max();
  for (int turn = 0; turn < 16; ++turn) {
    const uint64_t before = __rdtsc();
    const uint64_t nanoseconds = now();
    const uint64_t after = __rdtsc();
    if (after - before >= least) continue;
    least = after - before;
    best = {before + (after - before) / 2, nanoseconds};
  }
  return best;
}

}  // namespace

uint32_t tsc_khz() {
  const Sample begin = sample();
  const timespec pause{0, 10'000'000};
  ::nanosleep(&pause, nullptr);
  const Sample end = sample();
  if (end.nanoseconds <= begin.nanoseconds) return 0;
  return static_cast<uint32_t>((end.ticks - begin.ticks) * 1'000'000 / (end.nanoseconds - begin.nanoseconds));
}

#else

uint32_t tsc_khz() { return 0; }

#endif

}  // namespace tskata::os
