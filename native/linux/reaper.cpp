// waitpid in a thread: it sleeps in the kernel while there are children, and on a condition while there are none.
#include "linux/reaper.h"

#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace tskata::os {

namespace {

std::mutex mutex;
std::condition_variable born;
bool wakened = false;

void wait_for_child() {
  std::unique_lock lock(mutex);
  // The time limit is for orphans of processes that others made.
  born.wait_for(lock, std::chrono::milliseconds(500), [] { return wakened; });
  wakened = false;
}

void run(const std::function<void(int, int)>& on_exit) {
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  for (;;) {
    int status = 0;
    const int pid = ::waitpid(-1, &status, __WALL);
    if (pid > 0) on_exit(pid, status);
    else if (errno == ECHILD) wait_for_child();
  }
}

}  // namespace

void start_reaper(std::function<void(int pid, int status)> on_exit) {
  std::thread([on_exit = std::move(on_exit)] { run(on_exit); }).detach();
}

void wake_reaper() {
  const std::lock_guard lock(mutex);
  wakened = true;
  born.notify_one();
}

}  // namespace tskata::os
