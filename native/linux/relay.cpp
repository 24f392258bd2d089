// The relay's thread.
#include "linux/relay.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "jail/jail.h"

namespace tskata::os {

namespace {

constexpr size_t buffer_size = 256 * 1024;

// A terminal gives no more than a page to a read, however much waits behind it. After a read of this much there is likely more at once.
constexpr ssize_t terminal_bulk = 2048;
constexpr size_t gather_size = 64 * 1024;

// Has no default effect and nobody else uses it; its handler only makes a blocked write return.
int interrupt_signal() { return SIGRTMIN + 7; }

void install_interrupt() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(interrupt_signal(), &action, nullptr);
  });
}

// Of the thread's own pages: a relay is held for as long as JavaScript's garbage collector likes, which knows nothing of its size.
class Buffer {
 public:
  Buffer() : memory_(::mmap(nullptr, buffer_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Buffer() {
    if (*this) ::munmap(memory_, buffer_size);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  explicit operator bool() const { return memory_ != MAP_FAILED; }
  std::span<char> bytes() const { return {static_cast<char*>(memory_), buffer_size}; }

 private:
  void* memory_;
};

// True for as long as it lives.
class Flag {
 public:
  explicit Flag(std::atomic<bool>& flag) : flag_(flag) { flag_ = true; }
  ~Flag() { flag_ = false; }
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;

 private:
  std::atomic<bool>& flag_;
};

bool is_socket(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode);
}

bool is_vsock(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0 && address.ss_family == AF_VSOCK;
}

// A peer that has gone is no POLLHUP of a vsock's unless this side has shut it down, too (vsock_poll). Of other sockets this would be the caller's
// half-close.
short goodbye_of(int destination, bool half_close) { return !half_close && is_vsock(destination) ? POLLRDHUP : 0; }

}  // namespace

std::shared_ptr<Relay> Relay::start(Descriptor source, Descriptor destination, Manner manner, std::function<void(int error)> ended) {
  install_interrupt();
  const std::shared_ptr<Relay> relay(new Relay(std::move(source), std::move(destination), manner, std::move(ended)));
  const std::lock_guard lock(relay->mutex_);
  std::thread thread([relay] { relay->run(); });
  relay->thread_ = thread.native_handle();
  thread.detach();
  return relay;
}

Relay::Relay(Descriptor source, Descriptor destination, Manner manner, std::function<void(int error)> ended)
    : source_(std::move(source)),
      destination_(std::move(destination)),
      wake_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      manner_(manner),
      source_is_socket_(is_socket(source_.get())),
      destination_is_socket_(is_socket(destination_.get())),
      goodbye_(goodbye_of(destination_.get(), manner.half_close)),
      source_is_terminal_(::isatty(source_.get()) == 1),
      ended_(std::move(ended)) {}

void Relay::run() {
  // Signals of the process are the JavaScript thread's; only the interrupt is ours.
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, interrupt_signal());
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  if (manner_.patient) {
    const sched_param none{};
    (void)::sched_setscheduler(0, SCHED_BATCH, &none);  // sched(7): a thread of this policy preempts nobody when it wakes
  }
  jail::enter_thread(jail::Role::relay);
  const int error = pump();
  if (manner_.half_close) ::shutdown(destination_.get(), SHUT_WR);
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
    wake_.reset();
  }
  source_.reset();
  destination_.reset();
  // After done_ is set: whoever asks from now on is answered at once, whoever asked before is answered here.
  tell_drained();
  tell_reached(true);
  // Whatever the callback holds goes with this call, not with the last reference to the relay.
  const auto ended = std::move(ended_);
  ended(error);
}

int Relay::pump() {
  const Buffer buffer;
  if (!buffer) return ENOMEM;
  while (!stopping_) {
    bool empty = false;
    if (!wait_readable(wants_drain(), empty)) return EPIPE;
    if (stopping_) break;
    if (empty) {
      tell_drained();
      continue;
    }
    bool end = false;
    const ssize_t length = source_is_terminal_ ? gather(buffer.bytes(), end) : read_some(buffer.bytes());
    if (length == 0) return 0;
    if (length < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return errno == EIO ? 0 : errno;  // a pty's master reads EIO once its last slave is closed
    }
    {
      const std::lock_guard lock(mutex_);
      read_ += static_cast<uint64_t>(length);
    }
    const int error = write_all(buffer.bytes().data(), static_cast<size_t>(length));
    if (error != 0) return error;
    tell_reached(false);
    if (end) return 0;
  }
  return ECANCELED;
}

// True with `empty` when draining and there is nothing to read now; false when nobody can read the destination any more.
bool Relay::wait_readable(bool draining, bool& empty) {
  std::array<pollfd, 3> wait{{{source_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {destination_.get(), goodbye_, 0}}};
  const int ready = ::poll(wait.data(), wait.size(), draining ? 0 : -1);
  if (ready < 0) return true;
  if ((wait[1].revents & POLLIN) != 0) {
    uint64_t ignored;
    (void)!::read(wake_.get(), &ignored, sizeof ignored);
  }
  const bool readable = wait[0].revents != 0;
  if (!readable && (wait[2].revents & (POLLERR | POLLHUP | POLLRDHUP)) != 0) return false;
  empty = !readable;
  return true;
}

ssize_t Relay::read_some(std::span<char> into) {
  if (source_is_socket_) return ::recv(source_.get(), into.data(), into.size(), MSG_DONTWAIT);
  // Somebody else who holds the source, a shell its terminal, may have been faster: then this blocks.
  const Flag inside(inside_);
  if (stopping_) {
    errno = EINTR;
    return -1;
  }
  return ::read(source_.get(), into.data(), into.size());
}

// Several of a terminal's pages in one write. A small read ends it, so that what a person types or is shown waits for nothing. `end`: behind what was
// read there is the end of file, which a terminal tells once (termios(3), VEOF).
ssize_t Relay::gather(std::span<char> into, bool& end) {
  ssize_t last = read_some(into);
  if (last <= 0) return last;
  auto length = static_cast<size_t>(last);
  while (last >= terminal_bulk && length < gather_size) {
    if (manner_.patient) ::sched_yield();  // on the only processor, the kernel's thread that fills the next page needs it, too
    pollfd more{source_.get(), POLLIN, 0};
    if (::poll(&more, 1, 0) <= 0 || (more.revents & POLLIN) == 0) break;
    last = read_some(into.subspan(length));
    end = last == 0;
    if (last > 0) length += static_cast<size_t>(last);
  }
  return static_cast<ssize_t>(length);
}

int Relay::write_all(const char* data, size_t length) {
  const Flag inside(inside_);  // who stops the relay sees this, or is seen below
  while (length > 0) {
    if (stopping_) return ECANCELED;
    const ssize_t written =
        destination_is_socket_ ? ::send(destination_.get(), data, length, MSG_NOSIGNAL) : ::write(destination_.get(), data, length);
    if (written < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return errno;
      // The caller's own descriptor is non-blocking.
      pollfd wait{destination_.get(), POLLOUT, 0};
      ::poll(&wait, 1, 1000);
      continue;
    }
    data += written;
    length -= static_cast<size_t>(written);
    written_ += static_cast<uint64_t>(written);
  }
  return 0;
}

void Relay::when_drained(std::function<void(uint64_t)> done) {
  {
    const std::lock_guard lock(mutex_);
    if (!done_) {
      drains_.push_back(std::move(done));
      wake();
      return;
    }
  }
  done(read_);
}

void Relay::when_reached(uint64_t bytes, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    if (!done_ && written_ < bytes) {
      targets_.push_back({bytes, std::move(done)});
      return;
    }
  }
  done();
}

void Relay::stop() {
  stopping_ = true;
  const std::lock_guard lock(mutex_);
  if (done_) return;
  wake();
  if (!inside_) return;
  // A signal that comes just before a blocking call interrupts nothing: it is sent until the thread has noticed.
  std::thread([self = shared_from_this()] {
    while (self->interrupt()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }).detach();
}

bool Relay::interrupt() {
  const std::lock_guard lock(mutex_);
  if (done_) return false;
  ::pthread_kill(thread_, interrupt_signal());
  return true;
}

bool Relay::wants_drain() {
  const std::lock_guard lock(mutex_);
  return !drains_.empty();
}

void Relay::tell_drained() {
  std::vector<std::function<void(uint64_t)>> told;
  uint64_t read = 0;
  {
    const std::lock_guard lock(mutex_);
    told.swap(drains_);
    read = read_;
  }
  for (const auto& done : told) done(read);
}

void Relay::tell_reached(bool all) {
  std::vector<Target> told;
  {
    const std::lock_guard lock(mutex_);
    const auto waiting = std::ranges::stable_partition(targets_, [&](const Target& target) { return !all && target.bytes > written_; });
    told.assign(std::make_move_iterator(waiting.begin()), std::make_move_iterator(waiting.end()));
    targets_.erase(waiting.begin(), waiting.end());
  }
  for (const Target& target : told) target.done();
}

void Relay::wake() {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

}  // namespace tskata::os
