// tskata-jail: takes its place, gives things up, and becomes the program it is given.
//
//   tskata-jail [--cgroup-procs FILE]... [--shared FOLDER] [--chdir FOLDER] [--die-with-parent] [--keep-fd N]... -- PROGRAM [ARG]...
//
// In order: joins the cgroups (before anything is allocated, so that all of the pod is accounted); with --shared leaves the host's
// mount namespace for a copy that receives the host's changes and sends none, and mounts there the tmpfs that holds the pod's tree;
// closes every descriptor but 0, 1, 2 and the kept ones; changes folder; execs.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Options {
  std::vector<std::string> cgroup_procs;
  std::string shared;
  std::string folder;
  bool die_with_parent = false;
  std::vector<unsigned> kept;
  char** program = nullptr;
};

[[noreturn]] void fail(const std::string& step) {
  std::fprintf(stderr, "tskata-jail: %s: %s\n", step.c_str(), std::strerror(errno));
  ::_exit(125);
}

[[noreturn]] void usage(std::string_view what) {
  std::fprintf(stderr, "tskata-jail: %.*s\n", static_cast<int>(what.size()), what.data());
  ::_exit(125);
}

Options parse(int argc, char** argv) {
  Options out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--") {
      out.program = argv + i + 1;
      break;
    }
    if (flag == "--die-with-parent") {
      out.die_with_parent = true;
      continue;
    }
    if (++i >= argc) usage("a flag without its value");
    if (flag == "--cgroup-procs") out.cgroup_procs.emplace_back(argv[i]);
    else if (flag == "--shared") out.shared = argv[i];
    else if (flag == "--chdir") out.folder = argv[i];
    else if (flag == "--keep-fd") out.kept.push_back(static_cast<unsigned>(std::stoul(argv[i])));
    else usage("unknown flag");
  }
  if (out.program == nullptr || *out.program == nullptr) usage("no program");
  return out;
}

void join_cgroup(const std::string& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail("open " + file);
  if (::write(fd, "0", 1) != 1) fail("join " + file);
  ::close(fd);
}

void enter_mount_namespace(const std::string& shared) {
  if (::unshare(CLONE_NEWNS) != 0) fail("unshare mount namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) fail("make mounts slave");
  // Device nodes of a container's tree are looked at, never opened, here.
  if (::mount("tskata", shared.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") != 0) fail("mount " + shared);
  // Private: what the command line places below must stay in this namespace.
  if (::mount(nullptr, shared.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) fail("make " + shared + " private");
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

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (options.die_with_parent) {
    const pid_t parent = ::getppid();
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("set parent death signal");
    if (::getppid() != parent) return 125;  // it died before the signal was set
  }
  for (const std::string& file : options.cgroup_procs) join_cgroup(file);
  if (!options.shared.empty()) enter_mount_namespace(options.shared);
  ::umask(077);
  close_others(options.kept);
  if (!options.folder.empty() && ::chdir(options.folder.c_str()) != 0) fail("chdir " + options.folder);
  ::execvp(options.program[0], options.program);
  fail(std::string("exec ") + options.program[0]);
}
