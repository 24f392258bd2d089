// Runs hooks with the container's state on their stdin; the first that fails ends the launch.
#include "launcher/hooks.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>

#include "launcher/pointers.h"
#include "launcher/step.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

using Clock = std::chrono::steady_clock;

// Of each output, for the error message; the rest is read and dropped.
constexpr size_t output_limit = 1024;
// A hook may leave a background child holding its outputs open, so its own end is looked for this often.
constexpr int tick_ms = 20;

os::Descriptor state_file(const std::string& state, const std::string& step) {
  os::Descriptor file(attempt(::memfd_create("state", MFD_CLOEXEC), step));
  attempt(::pwrite(file.get(), state.data(), state.size(), 0), step);
  return file;
}

// One of the hook's outputs.
class Output {
 public:
  explicit Output(const std::string& step) {
    int ends[2];
    attempt(::pipe2(ends, O_CLOEXEC), step);
    read_ = os::Descriptor(ends[0]);
    write_ = os::Descriptor(ends[1]);
    attempt(::fcntl(ends[0], F_SETFL, O_NONBLOCK), step);
  }

  void be(int number) const { ::dup2(write_.get(), number); }
  void close_writer() { write_ = os::Descriptor(); }
  pollfd wait() const { return {ended_ ? -1 : read_.get(), POLLIN, 0}; }

  void drain() {
    char part[4096];
    while (!ended_) {
      const ssize_t length = ::read(read_.get(), part, sizeof part);
      if (length < 0) return;
      if (length == 0) ended_ = true;
      else text_.append(part, std::min(static_cast<size_t>(length), output_limit - text_.size()));
    }
  }

  const std::string& text() const { return text_; }

 private:
  os::Descriptor read_, write_;
  std::string text_;
  bool ended_ = false;
};

struct Streams {
  os::Descriptor input;
  Output output, errors;
};

[[noreturn]] void exec_hook(const Hook& hook, const Streams& streams) {
  ::setpgid(0, 0);
  ::dup2(streams.input.get(), 0);
  streams.output.be(1);
  streams.errors.be(2);
  std::vector<std::string> args = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  ::execve(hook.path.c_str(), pointers(args).data(), pointers(hook.env).data());
  const std::string words = std::strerror(errno);
  (void)!::write(2, words.data(), words.size());
  ::_exit(127);
}

// A hook that is a shell script must not leave its children running after its time is over: it leads a group of its own.
void end(pid_t pid) {
  ::kill(-pid, SIGKILL);
  ::kill(pid, SIGKILL);  // it may not lead it yet
  ::waitpid(pid, nullptr, 0);
}

// Its wait status, while what it prints is read; -1 when its time is over.
int end_of(pid_t pid, const Hook& hook, Streams& streams) {
  const auto limit = Clock::now() + std::chrono::seconds(hook.timeout_seconds);
  for (;;) {
    std::array<pollfd, 2> wait{streams.output.wait(), streams.errors.wait()};
    (void)::poll(wait.data(), wait.size(), tick_ms);
    int status = 0;
    const bool ended = ::waitpid(pid, &status, WNOHANG) == pid;
    streams.output.drain();
    streams.errors.drain();
    if (ended) return status;
    if (hook.timeout_seconds == 0 || Clock::now() < limit) continue;
    end(pid);
    return -1;
  }
}

void run_hook(const Hook& hook, size_t index, const std::string& state) {
  const std::string step = "error running startContainer hook #" + std::to_string(index) + " (" + hook.path + "): ";
  Streams streams{state_file(state, step), Output(step), Output(step)};
  const pid_t pid = attempt(::fork(), step);
  if (pid == 0) exec_hook(hook, streams);
  streams.output.close_writer();
  streams.errors.close_writer();
  const int status = end_of(pid, hook, streams);
  if (status == 0) return;
  if (status < 0) throw StepError(step + "hook ran past specified timeout of " + std::to_string(hook.timeout_seconds) + ".0s", 0);
  const std::string outcome =
      WIFSIGNALED(status) ? "signal: " + std::to_string(WTERMSIG(status)) : "exit status " + std::to_string(WEXITSTATUS(status));
  throw StepError(step + outcome + ", stdout: " + streams.output.text() + ", stderr: " + streams.errors.text(), 0);
}

}  // namespace

void run_start_hooks(const Plan& plan) {
  for (size_t index = 0; index < plan.start_hooks.size(); ++index) run_hook(plan.start_hooks[index], index, plan.hook_state);
}

}  // namespace tskata::launcher
