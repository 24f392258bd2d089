// One caller, one piece of work, one thread.
#include "kvm/starter.h"

#include <utility>

#include "jail/jail.h"

namespace tskata::kvm {

void Starter::start() {
  thread_ = jail::start_thread(jail::Role::starter, [this] { serve(); });
}

void Starter::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Starter::run(const std::function<void()>& work) {
  if (!thread_.joinable()) return work();
  const std::lock_guard turn(turn_);
  std::unique_lock lock(mutex_);
  work_ = &work;
  changed_.notify_all();
  changed_.wait(lock, [this] { return work_ == nullptr; });
  if (const std::exception_ptr failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
}

void Starter::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return work_ != nullptr || over_; });
    if (work_ == nullptr) return;
    try {
      (*work_)();  // with the lock held, which nobody else wants until it is done
    } catch (...) {
      failure_ = std::current_exception();
    }
    work_ = nullptr;
    changed_.notify_all();
  }
}

}  // namespace tskata::kvm
