// Waiting on kicks with a stop beside them; the fault policy of queue.h for threads.
#include "virtio/queue_workers.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>

#include "virtio/complaints.h"

#include "jail/jail.h"

namespace tskata::virtio {

namespace {

constexpr int looks_a_round = 16;
constexpr int most_alone = 16;
constexpr int enough_alone = 6;
constexpr int for_company = 2;
constexpr int rests = 50;  // looks that are left out once others wanted the processor

int64_t now() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void add_event(int events, int fd, uint32_t which) {
  epoll_event event{which, {.fd = fd}};
  os::checked(::epoll_ctl(events, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

}  // namespace

QueueReader::QueueReader(ActiveQueue queue, std::chrono::microseconds patience, std::chrono::microseconds crowded)
    : queue_(std::move(queue)),
      stop_(os::checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      events_(os::checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      patience_(std::chrono::nanoseconds(patience).count()),
      crowded_(std::chrono::nanoseconds(crowded).count()) {
  // Edges: each notification wakes one thread, and its counter need not be read.
  if (queue_.kick >= 0) add_event(events_.get(), queue_.kick, EPOLLIN | EPOLLET);
  add_event(events_.get(), stop_.get(), EPOLLIN);
}

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

bool QueueReader::wait_for_event() const {
  epoll_event event{};
  while (::epoll_wait(events_.get(), &event, 1, -1) < 0) {
    if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "epoll_wait");
  }
  return event.data.fd != stop_.get();
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
  bool idled = false;
  while (!stopped_) {
    if (queue().pop(chain)) {
      if (idled) brisk_ = now() - last_put_ <= patience_;
      if (patience_ > 0) count_alone();
      // Somebody else has to see the next, and what came before notifications were on.
      if (idle_ > 0 && queue().enable_notifications()) kick_another();
      return true;
    }
    idled = patience_ > 0;
    if (look()) continue;
    // Idle before the look at who looks: he turns notifications on when he is done, or when he takes a buffer and somebody is idle.
    ++idle_;
    // Asking for the notification and looking again closes the race of §2.7.13.3.1.
    const bool more = !looking_ && queue().enable_notifications();
    const bool goes_on = more || wait_for_event();
    if (--idle_ == 0) queue().disable_notifications();
    if (!goes_on) return false;
  }
  return false;
}

// Of a driver that waits for each answer, most buffers come alone.
void QueueReader::count_alone() {
  const bool alone = in_flight_++ == 0 && !queue().has_next();
  alone_ = alone ? std::min(alone_ + 1, most_alone) : std::max(alone_ - for_company, 0);
}

// Whether there is a buffer before patience is at its end. A processor that somebody else wants is not spent on this: then it is left alone for a
// while.
bool QueueReader::look() {
  if (patience_ == 0 || !brisk_ || alone_ < enough_alone || looking_.exchange(true)) return false;
  bool found = false;
  if (rests_ > 0) {
    --rests_;
  } else {
    queue().disable_notifications();
    const int64_t end = now() + patience_;
    for (int64_t last = now(); !found && !stopped_ && last < end;) {
      for (int i = 0; i < looks_a_round && !found; ++i) found = queue().has_next();
      const int64_t before = now();
      if (!found) std::this_thread::yield();
      last = now();
      if (last - before > crowded_) {
        rests_ = rests;
        break;
      }
    }
  }
  looking_ = false;
  return found;
}

void QueueReader::kick_another() const {
  const uint64_t one = 1;
  (void)!::write(queue_.kick, &one, sizeof one);
}

void QueueReader::put(uint16_t head, size_t written) {
  const Used one{head, static_cast<uint32_t>(std::min<size_t>(written, UINT32_MAX))};
  put(std::span(&one, 1));
}

void QueueReader::put(std::span<const Used> used) {
  if (queue().push(used) && queue_.interrupt) queue_.interrupt();
  if (patience_ == 0) return;
  last_put_ = now();
  in_flight_ -= used.size();
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
