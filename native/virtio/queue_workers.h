// Threads that serve one queue: how they wait for its buffers, stop, and end at a fault. For devices with a thread or more a queue
// (all but vsock, whose one thread has an epoll over everything).
#pragma once
#include <atomic>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::virtio {

// A queue as its threads see it: every wait ends when the queue is stopped.
class QueueReader {
 public:
  explicit QueueReader(ActiveQueue queue);

  Queue& queue() const { return *queue_.queue; }

  // The next buffer, waiting for one; false once stopped. Of several threads one waits, the others for their turn: an idle queue wakes
  // one thread, and a slow request never keeps the next from being taken.
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
  bool wait_for_kick() const;
  void take_kick() const;

  ActiveQueue queue_;
  os::Descriptor stop_;
  std::mutex turn_;
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
