// How the proxy ends by the sandbox process's last message: 'X' status:i32le, the guest process's wait status.
#pragma once
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

namespace tskata::proxy {

struct Ending {
  int signal;  // 0: by the exit code
  int code;
};

// A process is never ended by one that stops it, whatever a guest's agent says: the proxy would stay for ever.
constexpr bool stops(int number) { return number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU; }

// Anything but such a message, its end among them, means the pod died.
inline Ending ending_of(const uint8_t* message, size_t length) {
  int32_t status;
  if (length < 1 + sizeof status || message[0] != 'X') return {SIGKILL, 0};
  memcpy(&status, message + 1, sizeof status);
  if (!WIFSIGNALED(status)) return {0, WEXITSTATUS(status)};
  const int number = WTERMSIG(status);
  return stops(number) ? Ending{0, 128 + number} : Ending{number, 0};
}

}  // namespace tskata::proxy
