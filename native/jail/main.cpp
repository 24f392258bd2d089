// tskata-jail: what a process of a pod passes through before it is itself.
//
//   tskata-jail sandbox --tell FD --shared FOLDER [--cgroup-procs FILE]… [VIEW]… [--chdir FOLDER] [--keep-fd N]…
//                       [--seccomp enforce|log|off] -- PROGRAM [ARG]…
//     VIEW: --read PATH · --execute PATH · --write PATH · --device PATH · --link PATH TARGET
//   tskata-jail hypervisor [--seccomp enforce|log|off] -- PROGRAM [ARG]…
//
// `sandbox`, in order: joins the cgroups (before anything is allocated, so that all of the pod is accounted); leaves the host's mount,
// pid, network, ipc, uts and cgroup namespaces; makes a root of what the views show and moves there; becomes process 1 of its pid
// namespace and tells by FD ("pid N\n") which process that is on the host; keeps the capabilities of a file server; execs. The rest is
// given up by the program itself before the guest's first instruction (jail.h): it has to start the hypervisor before. Beside it starts the keeper of
// the file servers' handles (keeper/protocol.h): the numbers of its sockets, one for each of two servers, are in TSKATA_KEEPER_FDS.
//
// `hypervisor` runs inside, as a child of the former: gives up every capability, takes its list of system calls, execs.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "jail/capabilities.h"
#include "jail/jail.h"
#include "jail/root.h"
#include "keeper/keeper.h"

namespace {

using namespace tskata::jail;

constexpr int failed = 125;
constexpr rlim_t most_descriptors = 1 << 20;
constexpr rlim_t common_descriptors = 1024;  // soft limit of a process, of old
constexpr size_t most_file_servers = 2;      // of a pod: one for volumes, one for what the guest writes back

struct Options {
  bool hypervisor = false;
  Mode seccomp = Mode::enforce;
  std::vector<std::string> cgroup_procs;
  RootOptions root;
  std::string folder;
  int tell = -1;
  std::vector<unsigned> kept;
  char** program = nullptr;
};

[[noreturn]] void fail(const std::string& step, int error = errno) {
  std::fprintf(stderr, "tskata-jail: %s: %s\n", step.c_str(), std::strerror(error));
  ::_exit(failed);
}

[[noreturn]] void usage(std::string_view what) {
  std::fprintf(stderr, "tskata-jail: %.*s\n", static_cast<int>(what.size()), what.data());
  ::_exit(failed);
}

void require(int error, const char* step) {
  if (error != 0) fail(step, error);
}

// -- options ----------------------------------------------------------------------------------------------------------------------

class Words {
 public:
  Words(int count, char** words) : at_(words), end_(words + count) {}
  bool more() const { return at_ < end_; }
  const char* next() {
    if (!more()) usage("a flag without its value");
    return *at_++;
  }
  char** rest() const { return at_; }

 private:
  char** at_;
  char** end_;
};

Mode mode_of(std::string_view word) {
  if (word == "enforce") return Mode::enforce;
  if (word == "log") return Mode::log;
  if (word == "off") return Mode::off;
  usage("--seccomp is one of enforce, log, off");
}

bool take_view(std::string_view flag, Words& words, std::vector<View>& views) {
  View::Kind kind;
  if (flag == "--read") kind = View::Kind::read;
  else if (flag == "--execute") kind = View::Kind::execute;
  else if (flag == "--write") kind = View::Kind::write;
  else if (flag == "--device") kind = View::Kind::device;
  else if (flag == "--link") kind = View::Kind::link;
  else return false;
  View view{kind, words.next(), {}};
  if (kind == View::Kind::link) view.target = words.next();
  if (view.path.empty() || view.path[0] != '/') usage("a view's path is absolute");
  views.push_back(std::move(view));
  return true;
}

void take_flag(std::string_view flag, Words& words, Options& out) {
  if (take_view(flag, words, out.root.views)) return;
  if (flag == "--cgroup-procs") out.cgroup_procs.emplace_back(words.next());
  else if (flag == "--shared") out.root.shared = words.next();
  else if (flag == "--chdir") out.folder = words.next();
  else if (flag == "--seccomp") out.seccomp = mode_of(words.next());
  else if (flag == "--tell") out.tell = static_cast<int>(std::strtol(words.next(), nullptr, 10));
  else if (flag == "--keep-fd") out.kept.push_back(static_cast<unsigned>(std::strtoul(words.next(), nullptr, 10)));
  else usage("unknown flag");
}

Options parse(int argc, char** argv) {
  Options out;
  Words words(argc - 1, argv + 1);
  const std::string_view what = words.more() ? words.next() : "";
  if (what != "sandbox" && what != "hypervisor") usage("the first word is sandbox or hypervisor");
  out.hypervisor = what == "hypervisor";
  while (words.more()) {
    const std::string_view flag = words.next();
    if (flag == "--") {
      out.program = words.rest();
      break;
    }
    take_flag(flag, words, out);
  }
  if (out.program == nullptr || *out.program == nullptr) usage("no program");
  if (!out.hypervisor && (out.root.shared.empty() || out.tell < 0)) usage("a sandbox needs --shared and --tell");
  return out;
}

// -- steps ------------------------------------------------------------------------------------------------------------------------

void join_cgroup(const std::string& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail("open " + file);
  if (::write(fd, "0", 1) != 1) fail("join " + file);
  ::close(fd);
}

void leave_namespaces() {
  // The cgroup namespace after the cgroups were joined: its root is the pod's.
  constexpr int all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  if (::unshare(all) != 0) fail("leave the host's namespaces (mount, pid, net, ipc, uts, cgroup)");
}

void close_others(std::vector<unsigned> kept) {
  std::ranges::sort(kept);
  unsigned from = 3;
  for (const unsigned fd : kept) {
    if (fd > from) ::syscall(SYS_close_range, from, fd - 1, 0);
    from = std::max(from, fd + 1);
  }
  ::syscall(SYS_close_range, from, ~0u, 0);
}

rlim_t hard_limit(int resource, const char* name) {
  rlimit now{};
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &now) != 0) fail(std::string("read the limit ") + name);
  return now.rlim_max;
}

void limit(int resource, rlim_t most, const char* name) {
  const rlim_t least = std::min(most, hard_limit(resource, name));
  const rlimit wanted{least, least};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &wanted) != 0) fail(std::string("set the limit ") + name);
}

// The file servers hold a descriptor for each file that a guest knows of filesystems without handles. What a caller has is made for programs
// that hold few; less than all of them get was meant.
void raise_descriptors() {
  const rlim_t most = hard_limit(RLIMIT_NOFILE, "nofile");
  if (most < common_descriptors || most >= most_descriptors) return;
  const rlimit wanted{most_descriptors, most_descriptors};
  (void)::setrlimit(RLIMIT_NOFILE, &wanted);  // not ours to raise, or above fs.nr_open: then it stays
}

void set_limits() {
  limit(RLIMIT_CORE, 0, "core");  // a core would hold the guest's memory
  raise_descriptors();
  limit(RLIMIT_NOFILE, most_descriptors, "nofile");
  limit(RLIMIT_MSGQUEUE, 0, "msgqueue");
  limit(RLIMIT_RTPRIO, 0, "rtprio");
  limit(RLIMIT_NICE, 0, "nice");
}

// Keys of whoever called are not the pod's.
void leave_keyring() {
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS) fail("leave the session keyring");
}

// From here on the process is the caller's child as this one is, and number 1 in its pid namespace, whose end kills all in it.
void become_process_one(int tell) {
  const long pid = ::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid < 0) fail("make the first process of a pid namespace");
  if (pid == 0) return;
  const std::string line = "pid " + std::to_string(pid) + "\n";
  ::_exit(::write(tell, line.data(), line.size()) == static_cast<ssize_t>(line.size()) ? 0 : failed);
}

void enter_session() {
  if (::setsid() < 0) fail("setsid");
  if (::sethostname("tskata", 6) != 0) fail("set the host name");
}

void forbid_new_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("set no_new_privs");
}

// Without its capability there is no keeper, and the program finds its socket closed.
[[noreturn]] void become_keeper(const std::vector<int>& sockets, Mode seccomp) {
  close_others({sockets.begin(), sockets.end()});
  (void)::prctl(PR_SET_NAME, name(Role::keeper), 0, 0, 0);
  (void)::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  require(limit_bounding_set(0), "empty the keeper's bounding set");
  if (set_capabilities(keeper_capabilities, 0) != 0) ::_exit(0);
  forbid_new_privileges();
  if (seccomp != Mode::off) require(load(assemble(policy(Role::keeper), seccomp)), "load the keeper's filter");
  try {
    tskata::keeper::keep_handles(sockets);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "tskata-jail: the keeper of handles: %s\n", error.what());
  }
  ::_exit(0);
}

void start_keeper(Mode seccomp) {
  std::vector<int> own, keepers;
  std::string numbers;
  for (size_t i = 0; i < most_file_servers; ++i) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) fail("make the keeper's sockets");
    own.push_back(ends[0]);
    keepers.push_back(ends[1]);
    numbers += (i == 0 ? "" : " ") + std::to_string(ends[0]);
  }
  const pid_t child = ::fork();
  if (child < 0) fail("start the keeper of handles");
  if (child == 0) become_keeper(keepers, seccomp);
  for (const int socket : keepers) ::close(socket);
  for (const int socket : own) {
    if (::fcntl(socket, F_SETFD, 0) != 0) fail("hand on the keeper's sockets");
  }
  if (::setenv("TSKATA_KEEPER_FDS", numbers.c_str(), 1) != 0) fail("tell of the keeper's sockets");
}

void become_sandbox(const Options& options) {
  for (const std::string& file : options.cgroup_procs) join_cgroup(file);
  leave_namespaces();
  enter_root(options.root);
  set_limits();
  leave_keyring();
  close_others(options.kept);
  become_process_one(options.tell);
  mount_proc();
  enter_session();
  start_keeper(options.seccomp);
  require(hand_on_capabilities(starting_capabilities), "limit the capabilities");
  forbid_new_privileges();
  // Only what the program would otherwise find and keep: libuv makes rings as soon as it starts, and requests in them pass no filter.
  if (options.seccomp != Mode::off) require(load(assemble(policy(Role::starting), options.seccomp)), "load the filter of the start");
  ::umask(077);
  if (!options.folder.empty() && ::chdir(options.folder.c_str()) != 0) fail("chdir " + options.folder);
}

void become_hypervisor(Mode seccomp) {
  require(limit_bounding_set(0), "empty the bounding set");
  require(set_capabilities(0, 0), "drop the capabilities");
  forbid_new_privileges();
  if (seccomp != Mode::off) require(load(assemble(policy(Role::hypervisor), seccomp)), "load the hypervisor's filter");
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  try {
    if (options.hypervisor) become_hypervisor(options.seccomp);
    else become_sandbox(options);
  } catch (const std::system_error& error) {
    usage(error.what());
  }
  ::execv(options.program[0], options.program);
  fail(std::string("exec ") + options.program[0]);
}
