// Privileges given up in the order runc has, because seccomp profiles and images were written for it.
#include "launcher/process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <string>
#include <vector>

#include "launcher/hooks.h"
#include "launcher/pointers.h"
#include "launcher/report.h"
#include "launcher/seccomp.h"
#include "launcher/terminal.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

void set_scheduling(const Plan& plan) {
  if (plan.io_priority >= 0) attempt(::syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, plan.io_priority), "set process.ioPriority");
  if (!plan.scheduler.present) return;
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } const attributes{48,
                     plan.scheduler.policy,
                     plan.scheduler.flags,
                     plan.scheduler.nice,
                     plan.scheduler.priority,
                     plan.scheduler.runtime,
                     plan.scheduler.deadline,
                     plan.scheduler.period};
  attempt(::syscall(SYS_sched_setattr, 0, &attributes, 0), "set process.scheduler");
}

void set_rlimits(const Plan& plan) {
  for (const Rlimit& limit : plan.rlimits) {
    const rlimit64 value{limit.soft, limit.hard};
    attempt(::prlimit64(0, static_cast<__rlimit_resource>(limit.resource), &value, nullptr), "set rlimit " + std::to_string(limit.resource));
  }
}

void new_keyring(const Plan& plan) {
  if (!plan.has(flag_new_keyring)) return;
  // A profile or kernel without keys is no reason not to start.
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS && errno != EPERM && errno != EDQUOT) {
    throw StepError("join a new session keyring", errno);
  }
}

void drop_bounding(uint64_t kept) {
  for (int capability = 0; capability < 64; ++capability) {
    if ((kept >> capability & 1) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
      if (errno == EINVAL) return;  // beyond the kernel's last one
      throw StepError("drop capability " + std::to_string(capability) + " from the bounding set", errno);
    }
  }
}

void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = [](uint64_t set) { return static_cast<uint32_t>(set); };
  const auto high = [](uint64_t set) { return static_cast<uint32_t>(set >> 32); };
  const __user_cap_data_struct data[2] = {{low(effective), low(permitted), low(inheritable)}, {high(effective), high(permitted), high(inheritable)}};
  attempt(::syscall(SYS_capset, &header, data), "set the capabilities");
}

void raise_ambient(uint64_t set) {
  attempt(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear the ambient capabilities");
  for (int capability = 0; capability < 64; ++capability) {
    if ((set >> capability & 1) == 0) continue;
    // runc warns and goes on: an ambient capability must be permitted and inheritable (capabilities(7)).
    (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  }
}

void set_user(const Plan& plan) {
  std::vector<gid_t> groups(plan.groups.begin(), plan.groups.end());
  // "deny" in a user namespace's setgroups file leaves nothing to set.
  if (::setgroups(groups.size(), groups.data()) < 0 && !(errno == EPERM && groups.empty())) throw StepError("set the supplementary groups", errno);
  attempt(::setresgid(plan.gid, plan.gid, plan.gid), "set the group " + std::to_string(plan.gid));
  attempt(::setresuid(plan.uid, plan.uid, plan.uid), "set the user " + std::to_string(plan.uid));
}

void drop_privileges(const Plan& plan) {
  const Capabilities& kept = plan.capabilities;
  if (kept.present) drop_bounding(kept.bounding);
  attempt(::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities over the change of user");
  set_user(plan);
  attempt(::prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0), "end keeping capabilities");
  if (kept.present) {
    set_capabilities(kept.effective, kept.permitted, kept.inheritable);
    raise_ambient(kept.ambient);
  } else if (plan.uid != 0) {
    set_capabilities(0, 0, 0);
  }
}

void go_to_folder(const Plan& plan) {
  const std::string step = "chdir to cwd (\"" + plan.cwd + "\") set in config.json failed";
  if (::chdir(plan.cwd.c_str()) == 0) {
    char actual[PATH_MAX];
    // A working folder outside the root shows as "(unreachable)": the way out that CVE-2024-21626 was.
    if (::syscall(SYS_getcwd, actual, sizeof actual) < 0 || actual[0] != '/')
      throw StepError("current working directory is outside of container mount namespace root", 0);
    return;
  }
  throw StepError(step, errno);
}

bool executable(const std::string& path, int& error) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) < 0) {
    error = errno;
    return false;
  }
  if (S_ISDIR(facts.st_mode)) {
    error = EISDIR;
    return false;
  }
  if (::faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0) return true;
  error = errno == EPERM ? EACCES : errno;
  if ((facts.st_mode & 0111) == 0) error = EACCES;
  return false;
}

std::string words_of(int error) {
  std::string words = std::strerror(error);
  words[0] = static_cast<char>(std::tolower(words[0]));
  return words;
}

// Who says so of a name does not know whether there is such a file.
bool no_answer(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO; }

// As Go's exec.LookPath, whose words runc's callers match to tell 126 from 127; but what could not be looked at is not told as not there.
std::string look_up(const Plan& plan) {
  const std::string& name = plan.args.at(0);
  int error = 0;
  if (name.find('/') != std::string::npos) {
    if (executable(name, error)) return name;
    const std::string verb = error == EACCES || error == EISDIR ? "" : "stat " + name + ": ";
    throw StepError("exec: \"" + name + "\": " + verb + words_of(error), 0);
  }
  std::string path;
  for (const std::string& entry : plan.env) {
    if (entry.starts_with("PATH=")) path = entry.substr(5);
  }
  std::string unanswered;
  for (size_t at = 0; at <= path.size();) {
    const size_t colon = std::min(path.find(':', at), path.size());
    const std::string folder = path.substr(at, colon - at);
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (!path.empty() && executable(candidate, error)) return candidate;
    if (unanswered.empty() && no_answer(error)) unanswered = "stat " + candidate + ": " + words_of(error);
    at = colon + 1;
  }
  if (!unanswered.empty()) throw StepError("exec: \"" + name + "\": " + unanswered, 0);
  throw StepError("exec: \"" + name + "\": executable file not found in $PATH", 0);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

void become(const Plan& plan) {
  if (plan.has(flag_terminal) && !plan.has(flag_container)) open_terminal(plan);
  if (!plan.has(flag_terminal)) attempt(::setsid() < 0 && errno != EPERM ? -1 : 0, "setsid");
  if (plan.args.empty()) throw StepError("args must not be empty", 0);
  new_keyring(plan);
  set_scheduling(plan);
  set_rlimits(plan);
  if (plan.personality >= 0) attempt(::personality(static_cast<unsigned long>(plan.personality)), "set linux.personality");
  if (plan.has(flag_no_new_privs)) attempt(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs");
  // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
  if (!plan.has(flag_no_new_privs)) load_seccomp(plan.seccomp);
  drop_privileges(plan);
  if (plan.umask >= 0) ::umask(static_cast<mode_t>(plan.umask));
  else ::umask(0022);
  go_to_folder(plan);
  const std::string program = look_up(plan);
  report_ready();
  if (!wait_for_go()) ::_exit(125);
  if (plan.has(flag_no_new_privs)) load_seccomp(plan.seccomp);
  run_start_hooks(plan);
  reset_signals();
  ::execve(program.c_str(), pointers(plan.args).data(), pointers(plan.env).data());
  throw StepError("exec " + program + ": " + words_of(errno), 0);
}

}  // namespace tskata::launcher
