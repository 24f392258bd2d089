// Runs hooks with the container's state on their stdin; the first that fails ends the launch.
#include "launcher/hooks.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/pointers.h"
#include "launcher/step.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

os::Descriptor state_file(const std::string& state, const std::string& step) {
  os::Descriptor file(attempt(::memfd_create("state", MFD_CLOEXEC), step));
  attempt(::pwrite(file.get(), state.data(), state.size(), 0), step);
  return file;
}

[[noreturn]] void exec_hook(const Hook& hook, int state) {
  ::dup2(state, 0);
  std::vector<std::string> args = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  ::execve(hook.path.c_str(), pointers(args).data(), pointers(hook.env).data());
  ::_exit(127);
}

bool ends_in_time(int pid, uint32_t seconds) {
  if (seconds == 0) return true;
  const os::Descriptor process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return true;  // a filter without pidfd_open: then the hook has no time limit
  pollfd wait{process.get(), POLLIN, 0};
  return ::poll(&wait, 1, static_cast<int>(seconds) * 1000) != 0;
}

void run_hook(const Hook& hook, const std::string& state) {
  const std::string step = "error running startContainer hook " + hook.path;
  const os::Descriptor input = state_file(state, step);
  const pid_t pid = attempt(::fork(), step);
  if (pid == 0) exec_hook(hook, input.get());
  const bool timely = ends_in_time(pid, hook.timeout_seconds);
  if (!timely) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!timely) throw StepError(step + ": ran past its timeout of " + std::to_string(hook.timeout_seconds) + " s", 0);
  if (WIFSIGNALED(status)) throw StepError(step + ": signal " + std::to_string(WTERMSIG(status)), 0);
  if (WEXITSTATUS(status) != 0) throw StepError(step + ": exit status " + std::to_string(WEXITSTATUS(status)), 0);
}

}  // namespace

void run_start_hooks(const Plan& plan) {
  for (const Hook& hook : plan.start_hooks) run_hook(hook, plan.hook_state);
}

}  // namespace tskata::launcher
