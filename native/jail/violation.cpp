// The handler of SIGSYS. The call it tells of has not been made, so nothing is gained by changing the handler.
#include "jail/violation.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "linux/descriptor.h"
#include "syscall_names.h"

namespace tskata::jail {

namespace {

// Filled without a lock and without memory of the heap's: the thread may hold either.
class Line {
 public:
  void text(const char* what) {
    for (; *what != '\0' && length_ + 1 < sizeof bytes_; ++what) bytes_[length_++] = *what;
  }
  void number(unsigned value) {
    if (value >= 10) number(value / 10);
    const char digit[] = {static_cast<char>('0' + value % 10), '\0'};
    text(digit);
  }
  void write() const { (void)!::write(STDERR_FILENO, bytes_, length_); }

 private:
  char bytes_[160];
  size_t length_ = 0;
};

const char* call_name(int number) {
  for (const auto& call : syscall_names) {
    if (call.number == number) return call.name;
  }
  return "unknown";
}

void on_violation(int, siginfo_t* info, void*) {
  char thread[16] = "?";
  (void)::prctl(PR_GET_NAME, thread);
  Line line;
  line.text("tskata-jail: the thread \"");
  line.text(thread);
  line.text("\" made the system call ");
  line.text(call_name(info->si_syscall));
  line.text(" (");
  line.number(static_cast<unsigned>(info->si_syscall));
  line.text("), which its list (native/jail/policies.cpp) has not\n");
  line.write();
  // On no list. SIGSYS is blocked while its handler runs, so this one kills.
  ::syscall(SYS_reboot, 0, 0, 0, nullptr);
  ::_exit(128 + SIGSYS);
}

}  // namespace

void tell_violations() {
  struct sigaction action {};
  action.sa_sigaction = on_violation;
  action.sa_flags = SA_SIGINFO;
  os::checked(::sigaction(SIGSYS, &action, nullptr), "sigaction");
}

}  // namespace tskata::jail
