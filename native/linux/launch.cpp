// Starts the launcher by vfork and exec, and reads its reports.
#include "linux/launch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstring>

#include "linux/fd_passing.h"
#include "linux/reaper.h"

namespace tskata::os {

namespace {

constexpr int plan_fd = 3;
constexpr int report_fd = 4;
constexpr int first_free_fd = 5;

Descriptor plan_file(std::span<const std::byte> plan) {
  Descriptor file(checked(::memfd_create("plan", MFD_CLOEXEC), "memfd_create"));
  if (::pwrite(file.get(), plan.data(), plan.size(), 0) != static_cast<ssize_t>(plan.size())) {
    throw std::system_error(errno, std::generic_category(), "write the launch plan");
  }
  return file;
}

// Above the numbers the launcher knows, so that putting one in place does not close another.
Descriptor out_of_the_way(int fd) { return Descriptor(checked(::fcntl(fd, F_DUPFD_CLOEXEC, first_free_fd), "fcntl")); }

struct Wiring {
  const char* launcher;
  std::array<int, 5> fds;
};

// Between vfork and exec: system calls only.
[[noreturn]] void exec_launcher(const Wiring& wiring) {
  for (int fd = 0; fd < static_cast<int>(wiring.fds.size()); ++fd) {
    if (::dup2(wiring.fds[static_cast<size_t>(fd)], fd) < 0) ::_exit(126);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  char* const argv[] = {const_cast<char*>("tskata-launcher"), nullptr};
  char* const envp[] = {nullptr};
  ::execve(wiring.launcher, argv, envp);
  ::_exit(127);
}

void start(const std::string& launcher, int plan, int report, const std::array<int, 3>& stdio) {
  std::vector<Descriptor> held;
  Wiring wiring{launcher.c_str(), {}};
  const Descriptor null(checked(::open("/dev/null", O_RDWR | O_CLOEXEC), "open /dev/null"));
  const std::array<int, 5> wanted{stdio[0], stdio[1], stdio[2], plan, report};
  for (size_t i = 0; i < wanted.size(); ++i) {
    held.push_back(out_of_the_way(wanted[i] < 0 ? null.get() : wanted[i]));
    wiring.fds[i] = held.back().get();
  }
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of ours may run in the shared memory
  const pid_t pid = ::vfork();
  if (pid == 0) exec_launcher(wiring);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  wake_reaper();
  if (pid < 0) throw std::system_error(error, std::generic_category(), "vfork");
}

std::string text_of(const Packet& packet, size_t from) {
  return {reinterpret_cast<const char*>(packet.bytes.data()) + from, packet.bytes.size() - from};
}

[[noreturn]] void fail(const Packet& packet) {
  int32_t error = 0;
  if (packet.bytes.size() < 1 + sizeof error) throw LaunchFailure{"read the launcher's report", EBADMSG};
  std::memcpy(&error, packet.bytes.data() + 1, sizeof error);
  throw LaunchFailure{text_of(packet, 1 + sizeof error), error};
}

// Takes one report; true when it was the last before the process is ready.
bool take_report(Packet packet, Launched& process) {
  if (packet.bytes.empty()) throw LaunchFailure{"the launcher ended without a report", 0};
  switch (static_cast<char>(packet.bytes[0])) {
    case 'P': {
      uint32_t pid = 0;
      if (packet.bytes.size() >= 1 + sizeof pid) std::memcpy(&pid, packet.bytes.data() + 1, sizeof pid);
      process.pid = static_cast<int>(pid);
      return false;
    }
    case 'T':
      if (!packet.fds.empty()) process.terminal = std::move(packet.fds[0]);
      return false;
    case 'R': return true;
    default: fail(packet);
  }
}

}  // namespace

Launched launch(const std::string& launcher, std::span<const std::byte> plan, const std::array<int, 3>& stdio, bool goes) {
  int pair[2];
  checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
  Launched process;
  process.socket = std::make_shared<Descriptor>(pair[0]);
  Descriptor theirs(pair[1]);
  const Descriptor file = plan_file(plan);
  start(launcher, file.get(), theirs.get(), stdio);
  theirs.reset();
  bool ready = false;
  // The pid comes from the first process, "ready" from the second: in whichever order.
  while (!ready || process.pid < 0) ready = take_report(receive_packet(process.socket->get()), process) || ready;
  // Not before it is ready: what a launcher that fails has not read would reset the socket and take its report along.
  if (goes) release(process);
  return process;
}

void release(Launched& process) {
  const std::byte go{'G'};
  send_packet(process.socket->get(), {&go, 1}, {});
  const Packet packet = receive_packet(process.socket->get());
  process.socket->reset();
  if (!packet.bytes.empty()) fail(packet);
}

}  // namespace tskata::os
