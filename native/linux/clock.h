// The wall clock (CLOCK_REALTIME): read, brought to another's, and told of when it is set.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "linux/descriptor.h"

namespace tskata::os {

// Since 1970, to the nanosecond.
uint64_t read_wall_clock();

// Brings the clock `by` forward, or back. At once with `step`, and from a tenth of a second on; else the kernel slews it and its rate
// (adjtimex(2), the NTP discipline of Mills' RFC 5905), so that no process sees the time run backwards. Needs CAP_SYS_TIME.
void adjust_wall_clock(std::chrono::nanoseconds by, bool step);

// Calls `on_set` from a thread of its own whenever the clock is set, or the machine has slept (TFD_TIMER_CANCEL_ON_SET, timerfd_create(2)).
class ClockWatch {
 public:
  explicit ClockWatch(std::function<void()> on_set);
  ~ClockWatch();
  ClockWatch(const ClockWatch&) = delete;
  ClockWatch& operator=(const ClockWatch&) = delete;

 private:
  void run();

  std::function<void()> on_set_;
  Descriptor timer_;
  Descriptor stop_;
  std::thread thread_;
};

}  // namespace tskata::os
