// clock_gettime, clock_adjtime and a timer that is cancelled when the clock is set.
#include "linux/clock.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <limits>

#include "jail/jail.h"

namespace tskata::os {

namespace {

constexpr int64_t second = 1'000'000'000;
constexpr int64_t largest_slew = second / 10;
// Of the kernel's phase-locked loop, as it belongs to a reading every 64 s or so: it brings three fifths of what is wrong in 16 s.
constexpr long time_constant = 2;

// Two years before the kernel's own limit on times (KTIME_MAX, in the year 2262).
constexpr time_t never = std::numeric_limits<int64_t>::max() / second - 2 * 366 * 86400;

}  // namespace

uint64_t read_wall_clock() {
  timespec now{};
  checked(::clock_gettime(CLOCK_REALTIME, &now), "clock_gettime");
  return static_cast<uint64_t>(now.tv_sec) * second + static_cast<uint64_t>(now.tv_nsec);
}

void adjust_wall_clock(std::chrono::nanoseconds by, bool step) {
  const int64_t offset = by.count();
  timex change{};
  change.modes = ADJ_NANO | ADJ_STATUS | ADJ_TIMECONST | ADJ_OFFSET;
  change.status = STA_PLL;
  change.constant = time_constant;
  if (step || offset >= largest_slew || offset <= -largest_slew) {
    // The kernel wants nanoseconds of 0 to 999 999 999, whatever the sign of the whole. ADJ_OFFSET of 0 ends what it was slewing.
    change.modes |= ADJ_SETOFFSET;
    change.time.tv_sec = offset / second - (offset % second < 0 ? 1 : 0);
    change.time.tv_usec = offset - change.time.tv_sec * second;
  } else {
    change.offset = offset;
  }
  checked(::clock_adjtime(CLOCK_REALTIME, &change), "clock_adjtime");
}

ClockWatch::ClockWatch(std::function<void()> on_set)
    : on_set_(std::move(on_set)),
      timer_(checked(::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create")),
      stop_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")) {
  const itimerspec far{.it_interval = {}, .it_value = {.tv_sec = never, .tv_nsec = 0}};
  checked(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, nullptr), "timerfd_settime");
  thread_ = jail::start_thread(jail::Role::device, [this] { run(); });
}

ClockWatch::~ClockWatch() {
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void ClockWatch::run() {
  std::array<pollfd, 2> waits{{{timer_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  for (;;) {
    if (::poll(waits.data(), waits.size(), -1) < 0) continue;
    if (waits[1].revents != 0) return;
    // ECANCELED is the news; reading it is what makes the timer good for the next time.
    uint64_t expirations;
    if (::read(timer_.get(), &expirations, sizeof expirations) < 0 && errno == ECANCELED) on_set_();
  }
}

}  // namespace tskata::os
