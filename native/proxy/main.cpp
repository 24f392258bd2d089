// tskata-proxy: stands on the host for a process in the guest. Its pid is in the pid file; signals sent to it go to the guest process;
// it ends as that process ended, by exit code or by signal, so that whoever waits for it sees what runc's caller would.
//
//   tskata-proxy SOCKET [NETWORK]
//
// NETWORK is "new" or the path of a network namespace, which becomes the proxy's: engines find a container's network by the pid of its process, and
// Docker puts interfaces there. When the proxy is there it closes its standard output; what it says before is why it could not.
//
// SOCKET is a seqpacket descriptor whose other end the sandbox process holds. When standard input is a terminal the proxy makes it its
// controlling one, so that a change of its size arrives here.
//
//   proxy → sandbox   'P' pid:u32le                      first: who it is
//                     'S' signal:u8                      a signal for the guest process
//                     'W' rows:u16le columns:u16le       the terminal's new size
//   sandbox → proxy   'X' status:i32le                   the guest process's wait status
//
// The sandbox's end closing without 'X' means the pod died: the proxy dies by SIGKILL, as its guest process did.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/confine.h"
#include "proxy/ending.h"

namespace {

[[noreturn]] void die_by(int signal_number) {
  signal(signal_number, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal_number);
  sigprocmask(SIG_UNBLOCK, &only, nullptr);
  kill(getpid(), signal_number);
  _exit(128 + signal_number);  // a signal whose default is not to die
}

// A container's network is never the one of whoever called.
void enter_network(const char* network) {
  int result;
  if (strcmp(network, "new") == 0) {
    result = unshare(CLONE_NEWNET);
  } else {
    const int fd = open(network, O_RDONLY | O_CLOEXEC);
    result = fd < 0 ? fd : setns(fd, CLONE_NEWNET);
    if (fd >= 0) close(fd);
  }
  if (result == 0) return;
  dprintf(STDOUT_FILENO, "enter the network namespace \"%s\": %s", network, strerror(errno));
  _exit(2);
}

// Its reader sees the end of it.
bool end_output() {
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  return null >= 0 && dup2(null, STDOUT_FILENO) == STDOUT_FILENO && close(null) == 0;
}

void tell_pid(int socket) {
  uint8_t message[5] = {'P'};
  const uint32_t pid = static_cast<uint32_t>(getpid());
  memcpy(message + 1, &pid, sizeof pid);
  (void)!send(socket, message, sizeof message, MSG_NOSIGNAL);
}

void forward_size(int socket, int tty) {
  winsize size = {};
  if (ioctl(tty, TIOCGWINSZ, &size) != 0) return;
  const uint8_t message[5] = {'W', static_cast<uint8_t>(size.ws_row), static_cast<uint8_t>(size.ws_row >> 8), static_cast<uint8_t>(size.ws_col),
                              static_cast<uint8_t>(size.ws_col >> 8)};
  (void)!send(socket, message, sizeof message, MSG_NOSIGNAL);
}

void forward_signals(int socket, int signals, int tty) {
  signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGWINCH && tty >= 0) {
      forward_size(socket, tty);
      continue;
    }
    if (number == SIGCHLD) continue;
    const uint8_t message[2] = {'S', static_cast<uint8_t>(number)};
    (void)!send(socket, message, sizeof message, MSG_NOSIGNAL);
  }
}

void on_message(int socket) {
  uint8_t message[16];
  const ssize_t length = recv(socket, message, sizeof message, MSG_DONTWAIT);
  if (length < 0) return;
  const tskata::proxy::Ending ending = tskata::proxy::ending_of(message, static_cast<size_t>(length));
  if (ending.signal != 0) die_by(ending.signal);
  _exit(ending.code);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return 2;
  const int socket = atoi(argv[1]);
  const int tty = isatty(STDIN_FILENO) == 1 ? STDIN_FILENO : -1;
  prctl(PR_SET_NAME, "tskata-proxy");
  if (argc == 3) enter_network(argv[2]);
  if (tty >= 0) {
    setsid();
    ioctl(tty, TIOCSCTTY, 0);
  }
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  const int signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
  const rlimit none = {0, 0};  // the guest process's core, if any, is not ours
  if (signals < 0 || chdir("/") != 0 || setrlimit(RLIMIT_CORE, &none) != 0 || !end_output() || !tskata::proxy::confine()) return 2;
  tell_pid(socket);
  if (tty >= 0) forward_size(socket, tty);
  pollfd wait[2] = {{socket, POLLIN, 0}, {signals, POLLIN, 0}};
  for (;;) {
    if (poll(wait, 2, -1) < 0) continue;
    if (wait[1].revents != 0) forward_signals(socket, signals, tty);
    if (wait[0].revents != 0) on_message(socket);
  }
}
