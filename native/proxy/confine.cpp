// Its list of system calls is written out as the kernel takes it: what makes the sandbox process's lists (jail/filter.cpp) needs the C++ runtime.
#include "proxy/confine.h"

#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail/bpf.h"
#include "jail/capabilities.h"

namespace tskata::proxy {

namespace {

using namespace jail::bpf;

// x32's numbers, which x86-64 kernels take under the same architecture, are none of these: they are larger.
constexpr uint32_t calls[] = {
    SYS_ppoll,
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_restart_syscall,  // poll, after a stop and SIGCONT
    SYS_read,             // signals
    SYS_recvfrom,
    SYS_sendto,
    // ends as the guest's process did
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_getpid,
    SYS_exit_group,
};
constexpr size_t count = sizeof calls / sizeof *calls;

class Program {
 public:
  void add(uint16_t code, uint32_t constant, uint8_t if_true = 0, uint8_t if_false = 0) { lines_[length_++] = {code, if_true, if_false, constant}; }

  void allow(uint32_t number) {
    add(jump_equal, number, 0, 1);
    add(give, SECCOMP_RET_ALLOW);
  }

  // Where the argument is this value; all that the proxy ever compares fits the lower half.
  void allow_with(uint32_t number, int argument, uint32_t value) {
    const size_t at = offsetof(seccomp_data, args) + static_cast<size_t>(argument) * sizeof(uint64_t);
    add(jump_equal, number, 0, 4);
    add(load_word, static_cast<uint32_t>(at));
    add(jump_equal, value, 0, 1);
    add(give, SECCOMP_RET_ALLOW);
    add(give, SECCOMP_RET_KILL_PROCESS);
  }

  bool load() const {
    const sock_fprog form{static_cast<unsigned short>(length_), const_cast<sock_filter*>(lines_)};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &form) == 0;
  }

 private:
  sock_filter lines_[5 + 2 * count + 2 * 5]{};
  size_t length_ = 0;
};

bool load_filter() {
  Program program;
  program.add(load_word, offsetof(seccomp_data, arch));
  program.add(jump_equal, architecture, 1, 0);
  program.add(give, SECCOMP_RET_KILL_PROCESS);
  program.add(load_word, offsetof(seccomp_data, nr));
  for (const uint32_t number : calls) program.allow(number);
  program.allow_with(SYS_ioctl, 1, TIOCGWINSZ);
  program.allow_with(SYS_kill, 0, static_cast<uint32_t>(getpid()));
  program.add(give, SECCOMP_RET_KILL_PROCESS);
  return program.load();
}

}  // namespace

bool confine() { return jail::hand_on_capabilities(0) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && load_filter(); }

}  // namespace tskata::proxy
