// The thread between the pipe and the file.
#include "devices/console/console_pipe.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <future>
#include <memory>
#include <string_view>
#include <thread>

#include "devices/console/console_log.h"
#include "jail/jail.h"

namespace tskata::devices::console {

namespace {

void copy(int source, BoundedFile& file) {
  std::array<char, 16 * 1024> part;
  for (;;) {
    const ssize_t length = ::read(source, part.data(), part.size());
    if (length > 0) file.append(std::string_view(part.data(), static_cast<size_t>(length)));
    else if (length == 0 || errno != EINTR) return;
  }
}

}  // namespace

void log_pipe(os::Descriptor source, os::Descriptor file, std::function<void()> ended) {
  // Made here, where its complaint about a file that is none reaches the caller.
  auto log = std::make_unique<BoundedFile>(std::move(file));
  std::promise<void> registered;
  const std::future<void> known = registered.get_future();
  std::thread([registered = std::move(registered), source = std::move(source), log = std::move(log), ended = std::move(ended)]() mutable {
    // Signals of the process are the JavaScript thread's.
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    jail::enter_thread(jail::Role::device, [&registered] { registered.set_value(); });
    copy(source.get(), *log);
    source.reset();
    log.reset();
    ended();
  }).detach();
  // The jail may be closed next: of a thread that it does not know yet it would ask by a signal to give up its rights.
  known.wait();
}

}  // namespace tskata::devices::console
