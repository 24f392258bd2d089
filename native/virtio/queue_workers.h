// Threads that serve one queue: how they wait for its buffers, stop, and end at a fault. For devices with a thread or more a queue
// (all but vsock, whose one thread has an epoll over everything).
#pragma once
#include <atomic>
#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::virtio {

// A queue as its threads see it: every wait ends when the queue is stopped.
//
// Idle threads wait in one epoll: a notification wakes one of them, which serves the buffer itself. Notifications are on whenever a thread is idle,
// so that a slow request never keeps the next from being taken, and off when none is.
//
// With `patience` a thread that finds no buffer looks for one that long before it waits, notifications off: a driver whose next request follows the
// answer to the last is spared the notification, and the device the time to wake. One thread of a queue at a time, and only as long as
// buffers do come within that time, most of them alone: a driver that has several under way is busy with them, and needs its processors itself. A
// processor that others want is not spent on looking: where they take it for `crowded`, there is none for a while.
class QueueReader {
 public:
  // sched_yield(2) takes less than one microsecond where nobody waits.
  static constexpr std::chrono::microseconds default_crowded{200};

  explicit QueueReader(ActiveQueue queue, std::chrono::microseconds patience = {}, std::chrono::microseconds crowded = default_crowded);

  Queue& queue() const { return *queue_.queue; }

  // The next buffer, waiting for one; false once stopped.
  bool take(Chain& chain);

  // Until `fd` is ready (poll events; errors of it count as ready), never for -1; false once stopped.
  bool wait_for(int fd, short events) const;

  // Until the driver notifies or `fd` is readable; false once stopped. For the one thread of a queue that waits for more than buffers.
  bool wait_for_kick_or(int fd) const;

  // Returns buffers and interrupts the driver when it wants that.
  void put(uint16_t head, size_t written);
  void put(std::span<const Used> used);

  void stop();  // from any thread, any number of times
  bool stopped() const { return stopped_.load(); }

 private:
  bool wait_for_event() const;
  bool look();
  void count_alone();
  void take_kick() const;
  void kick_another() const;

  ActiveQueue queue_;
  os::Descriptor stop_;
  os::Descriptor events_;
  const int64_t patience_;  // nanoseconds, as the others
  const int64_t crowded_;
  std::atomic<unsigned> idle_ = 0;
  std::atomic<bool> looking_ = false;
  int rests_ = 0;  // how often there is no looking; of who looks
  std::atomic<size_t> in_flight_ = 0;
  std::atomic<int> alone_ = 0;
  std::atomic<bool> brisk_ = false;    // the last buffer that was waited for came within the patience
  std::atomic<int64_t> last_put_ = 0;  // by the steady clock
  std::atomic<bool> stopped_ = false;  // for a thread that never comes to wait, since the guest keeps the queue full
};

class QueueWorkers {
 public:
  // What a thread does until the queue is stopped.
  using Body = std::function<void(QueueReader&)>;
  // Serves one buffer; returns the bytes written to it.
  using Serve = std::function<size_t(const Chain&)>;

  // `name` is the device's, for the line about a fault.
  QueueWorkers(std::string name, ActiveQueue queue, unsigned threads, Body body);
  // Returns when no thread touches the queue any more: waits for requests that are being served.
  ~QueueWorkers();

  // A body that takes buffers and serves each.
  static Body each(Serve serve);

 private:
  void run();
  void end(const char* why);

  std::string name_;
  QueueReader reader_;
  Body body_;
  std::atomic<bool> broken_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tskata::virtio
