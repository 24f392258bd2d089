// A pty for the process.
#include "launcher/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "launcher/report.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

void be_console(int master) {
  unsigned number = 0;
  attempt(::ioctl(master, TIOCGPTN, &number), "number of the terminal");
  const std::string slave = "/dev/pts/" + std::to_string(number);
  const os::Descriptor console(::open("/dev/console", O_CREAT | O_WRONLY | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC, 0666));
  // Over an image's own console or the empty file just made.
  attempt(::mount(slave.c_str(), "/dev/console", nullptr, MS_BIND, nullptr), "bind the terminal to /dev/console");
}

}  // namespace

void open_terminal(const Plan& plan) {
  const os::Descriptor master(attempt(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "open /dev/ptmx"));
  int unlocked = 0;
  attempt(::ioctl(master.get(), TIOCSPTLCK, &unlocked), "unlock the terminal");
  const os::Descriptor slave(attempt(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), "open the terminal"));
  if (plan.rows != 0 || plan.columns != 0) {
    winsize size{};
    size.ws_row = static_cast<unsigned short>(plan.rows);
    size.ws_col = static_cast<unsigned short>(plan.columns);
    attempt(::ioctl(master.get(), TIOCSWINSZ, &size), "set the terminal's size");
  }
  attempt(::fchown(slave.get(), plan.uid, static_cast<gid_t>(-1)), "give the terminal to the user");
  if (plan.has(flag_container)) be_console(master.get());
  attempt(::setsid() < 0 && errno != EPERM ? -1 : 0, "setsid");
  for (int fd = 0; fd < 3; ++fd) attempt(::dup2(slave.get(), fd), "make the terminal standard input and output");
  attempt(::ioctl(0, TIOCSCTTY, 0), "make it the controlling terminal");
  report_terminal(master.get());
}

}  // namespace tskata::launcher
