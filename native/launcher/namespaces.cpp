// Cgroup, namespaces and what else a process to be gets from outside of them.
#include "launcher/namespaces.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <fstream>
#include <string>
#include <string_view>

#include "launcher/report.h"

namespace tskata::launcher {

namespace {

void write_file(const std::string& path, const std::string& text, const std::string& step) {
  const int fd = attempt(::open(path.c_str(), O_WRONLY | O_CLOEXEC), step);
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int error = errno;
  ::close(fd);
  if (written != static_cast<ssize_t>(text.size())) throw StepError(step, written < 0 ? error : EIO);
}

const char* name_of(uint32_t type) {
  switch (type) {
    case CLONE_NEWUSER: return "user";
    case CLONE_NEWPID: return "pid";
    case CLONE_NEWNS: return "mnt";
    case CLONE_NEWNET: return "net";
    case CLONE_NEWIPC: return "ipc";
    case CLONE_NEWUTS: return "uts";
    case CLONE_NEWCGROUP: return "cgroup";
    case CLONE_NEWTIME: return "time";
    default: return "unknown";
  }
}

// A new time namespace is for children; its offsets can be set only while it has no process (time_namespaces(7)).
void make_time_namespace(const Plan& plan) {
  if ((plan.new_namespaces & CLONE_NEWTIME) == 0) return;
  attempt(::unshare(CLONE_NEWTIME), "make a time namespace");
  if (!plan.time_offsets.empty()) write_file("/proc/self/timens_offsets", plan.time_offsets, "set linux.timeOffsets");
}

int clone_process(uint64_t flags) {
  clone_args arguments{};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  return static_cast<int>(::syscall(SYS_clone3, &arguments, sizeof arguments));
}

void write_maps(const Plan& plan, int pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  if (!plan.uid_map.empty()) write_file(folder + "/uid_map", plan.uid_map, "write the user namespace's uid_map");
  if (!plan.gid_map.empty()) write_file(folder + "/gid_map", plan.gid_map, "write the user namespace's gid_map");
}

void run_on(const std::vector<uint32_t>& cpus, const char* field) {
  if (cpus.empty()) return;
  const std::string step = std::string("set process.execCPUAffinity.") + field;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const uint32_t cpu : cpus) {
    if (cpu >= CPU_SETSIZE) throw StepError(step, EINVAL);
    CPU_SET(cpu, &set);
  }
  attempt(::sched_setaffinity(0, sizeof set, &set), step);
}

// An init may go from one cgroup to the next for ever; it does so a few times at most.
constexpr int cgroup_turns = 16;

// Where the process belongs now: with the init, once that has left for a cgroup below, as systemd does. In the container's own it would keep
// the init from handing controllers on (kernel Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
std::string cgroup_now(const Plan& plan) {
  if (plan.cgroup_of == 0) return plan.cgroup;
  std::ifstream file("/proc/" + std::to_string(plan.cgroup_of) + "/cgroup");
  std::string line;
  std::getline(file, line);
  constexpr std::string_view unified = "0::";  // cgroups(7)
  if (!line.starts_with(unified)) return plan.cgroup;
  std::string own = "/sys/fs/cgroup" + line.substr(unified.size());
  return own.starts_with(plan.cgroup + "/") ? own : plan.cgroup;
}

// The init may leave meanwhile, and move along only what it finds: so look again afterwards.
void enter_cgroup(const Plan& plan) {
  std::string entered;
  for (int turn = 1; turn <= cgroup_turns; turn++) {
    const std::string folder = cgroup_now(plan);
    if (folder == entered) return;
    try {
      write_file(folder + "/cgroup.procs", "0", "join the cgroup " + folder);
      entered = folder;
    } catch (const StepError&) {
      if (turn == cgroup_turns || cgroup_now(plan) == folder) throw;
    }
  }
}

}  // namespace

void set_oom_score(const Plan& plan) {
  if (plan.oom_score_adj == INT_MIN) return;
  write_file("/proc/self/oom_score_adj", std::to_string(plan.oom_score_adj), "set process.oomScoreAdj");
}

void join_cgroup(const Plan& plan) {
  run_on(plan.initial_cpus, "initial");
  if (!plan.cgroup.empty()) enter_cgroup(plan);
  run_on(plan.final_cpus, "final");
}

void join_namespaces(const Plan& plan) {
  for (const NamespaceJoin& join : plan.joins) {
    const std::string step = std::string("join the ") + name_of(join.type) + " namespace";
    const int fd = attempt(::open(join.path.c_str(), O_RDONLY | O_CLOEXEC), step);
    attempt(::setns(fd, static_cast<int>(join.type)), step);
    ::close(fd);
  }
}

void make_process(const Plan& plan, const std::function<void(int mapped)>& body) {
  make_time_namespace(plan);
  const bool maps = (plan.new_namespaces & CLONE_NEWUSER) != 0;
  int mapped[2] = {-1, -1};
  if (maps) attempt(::pipe2(mapped, O_CLOEXEC), "pipe");
  // A cgroup namespace's root is the cgroup its maker is in: the container's, since join_cgroup.
  const uint64_t flags = plan.new_namespaces & ~static_cast<uint64_t>(CLONE_NEWTIME);
  const int pid = attempt(clone_process(flags), "make the container's process and namespaces");
  if (pid == 0) {
    if (maps) ::close(mapped[1]);
    body(mapped[0]);
    ::_exit(125);
  }
  if (maps) {
    ::close(mapped[0]);
    try {
      write_maps(plan, pid);
      (void)!::write(mapped[1], "m", 1);
    } catch (...) {
      ::kill(pid, SIGKILL);
      throw;
    }
  }
  report_pid(pid);
}

void wait_for_maps(int mapped) {
  if (mapped < 0) return;
  char byte;
  if (::read(mapped, &byte, 1) != 1) ::_exit(125);  // the first process told why
  ::close(mapped);
  // Ids of the parent namespace mean nothing here; until now the process is "nobody" and may not even mount.
  attempt(::setgroups(0, nullptr), "drop supplementary groups");
  attempt(::setresgid(0, 0, 0), "become the user namespace's root group");
  attempt(::setresuid(0, 0, 0), "become the user namespace's root");
}

}  // namespace tskata::launcher
