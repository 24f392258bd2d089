// Moves bytes from one descriptor to another on a thread of its own.
//
// Neither descriptor is made non-blocking: they may be shared with the caller's shell. The thread polls before it reads; a write may
// block, and is interrupted by a signal when the relay must end.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::os {

class Relay : public std::enable_shared_from_this<Relay> {
 public:
  // Starts it. `patient`: whoever fills its source or empties its destination is not preempted by it, and so has done more when it is its turn.
  // `half_close`: others hold descriptors of the destination's socket, so its end is told by shutdown; never so for a
  // socket that is the caller's standard output. `ended` is called once, on the relay's thread, after both descriptors are closed: 0 at end of file,
  // else an errno. The thread keeps the relay alive.
  struct Manner {
    bool half_close = false;
    bool patient = false;
  };
  static std::shared_ptr<Relay> start(Descriptor source, Descriptor destination, Manner manner, std::function<void(int error)> ended);

  uint64_t moved() const { return written_.load(); }
  // Calls back with the bytes read once the source has been empty, or at its end.
  void when_drained(std::function<void(uint64_t read)> done);
  // Calls back once this many bytes have been written, or at the relay's end.
  void when_reached(uint64_t bytes, std::function<void()> done);
  void stop();

 private:
  struct Target {
    uint64_t bytes;
    std::function<void()> done;
  };

  Relay(Descriptor source, Descriptor destination, Manner manner, std::function<void(int error)> ended);
  void run();
  int pump();
  bool wait_readable(bool draining, bool& empty);
  ssize_t read_some(std::span<char> into);
  ssize_t gather(std::span<char> into, bool& end);
  int write_all(const char* data, size_t length);
  void tell_drained();
  void tell_reached(bool all);
  bool wants_drain();
  bool interrupt();
  void wake();

  // All three are the thread's, and go with it: who holds the relay afterwards holds numbers.
  Descriptor source_;
  Descriptor destination_;
  Descriptor wake_;
  Manner manner_;
  bool source_is_socket_ = false;
  bool destination_is_socket_ = false;
  short goodbye_ = 0;  // what a destination's poll says, besides POLLHUP, when nobody can read it any more
  bool source_is_terminal_ = false;
  std::function<void(int error)> ended_;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> inside_ = false;  // a call that may block, which only a signal ends
  std::mutex mutex_;                  // guards what follows
  uint64_t read_ = 0;
  bool done_ = false;
  pthread_t thread_ = 0;
  std::vector<std::function<void(uint64_t)>> drains_;
  std::vector<Target> targets_;
};

}  // namespace tskata::os
