// Waiting on kicks with a stop beside them; the fault policy of queue.h for threads.
#include "virtio/queue_workers.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>

#include "virtio/complaints.h"

#include "jail/jail.h"

namespace tskata::virtio {

QueueReader::QueueReader(ActiveQueue queue) : queue_(std::move(queue)), stop_(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {}

bool QueueReader::wait_for(int fd, short events) const {
  std::array<pollfd, 2> wait{{{fd, events, 0}, {stop_.get(), POLLIN, 0}}};
  while (!stopped_) {
    if (::poll(wait.data(), wait.size(), -1) < 0) {
      if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
      continue;
    }
    if (wait[1].revents != 0) return false;
    if (wait[0].revents != 0) return true;
  }
  return false;
}

bool QueueReader::wait_for_kick() const {
  if (!wait_for(queue_.kick, POLLIN)) return false;
  take_kick();
  return true;
}

void QueueReader::take_kick() const {
  uint64_t kicks;
  (void)!::read(queue_.kick, &kicks, sizeof kicks);
}

bool QueueReader::wait_for_kick_or(int fd) const {
  std::array<pollfd, 3> wait{{{fd, POLLIN, 0}, {queue_.kick, POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  while (!stopped_) {
    if (::poll(wait.data(), wait.size(), -1) < 0) {
      if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
      continue;
    }
    if (wait[2].revents != 0) return false;
    if (wait[1].revents != 0) take_kick();
    return true;
  }
  return false;
}

bool QueueReader::take(Chain& chain) {
  const std::lock_guard turn(turn_);
  while (!stopped_) {
    if (queue().pop(chain)) return true;
    // Asking for the kick and looking again closes the race of §2.7.13.3.1.
    if (queue().enable_notifications()) continue;
    if (!wait_for_kick()) return false;
    queue().disable_notifications();
  }
  return false;
}

void QueueReader::put(uint16_t head, size_t written) {
  const Used one{head, static_cast<uint32_t>(std::min<size_t>(written, UINT32_MAX))};
  put(std::span(&one, 1));
}

void QueueReader::put(std::span<const Used> used) {
  if (queue().push(used) && queue_.interrupt) queue_.interrupt();
}

void QueueReader::stop() {
  stopped_ = true;
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);  // never read: it stays readable for every thread
}

QueueWorkers::QueueWorkers(std::string name, ActiveQueue queue, unsigned threads, Body body)
    : name_(std::move(name)), reader_(std::move(queue)), body_(std::move(body)) {
  try {
    for (unsigned i = 0; i < std::max(1u, threads); ++i) threads_.emplace_back([this] { run(); });
  } catch (...) {  // the destructor does not run, and a thread must be joined
    reader_.stop();
    for (std::thread& thread : threads_) thread.join();
    throw;
  }
}

QueueWorkers::~QueueWorkers() {
  reader_.stop();
  for (std::thread& thread : threads_) thread.join();
}

QueueWorkers::Body QueueWorkers::each(Serve serve) {
  return [serve = std::move(serve)](QueueReader& reader) {
    Chain chain;
    while (reader.take(chain)) reader.put(chain.head, serve(chain));
  };
}

void QueueWorkers::run() {
  try {
    jail::enter_thread(jail::Role::device);
    body_(reader_);
  } catch (const std::exception& error) {  // QueueFault, or a host that is out of memory or descriptors: not the pod's end
    end(error.what());
  }
}

void QueueWorkers::end(const char* why) {
  // Said once a start, however many threads see it.
  if (!broken_.exchange(true)) complain(name_ + ": queue stopped: " + why);
  reader_.stop();
}

}  // namespace tskata::virtio
