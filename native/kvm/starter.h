// Starts devices' queues for the vCPUs. A queue brings threads and descriptors of its own, which a vCPU, for all that a guest may make of
// it, is not allowed to make (jail/policies.cpp); and a thread inherits the list of system calls of the one that makes it.
#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace tskata::kvm {

class Starter {
 public:
  ~Starter() { stop(); }

  void start();  // before the jail closes, which waits for it from then on, and before the vCPUs run
  void stop();   // when they have ended; idempotent

  // Runs `work` on the thread and waits for it, several callers one after the other; throws what it throws. Without a thread: right here.
  void run(const std::function<void()>& work);

 private:
  void serve();

  std::thread thread_;
  std::mutex turn_;  // of the callers
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
  std::exception_ptr failure_;
  bool over_ = false;
};

}  // namespace tskata::kvm
