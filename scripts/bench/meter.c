// How fast a stream is, at one of its ends: `meter read|write BYTES` moves so many bytes from standard input, or zeroes to standard output,
// and prints MiB/s to standard error, counted once FIRST bytes have passed: by then what fills the buffers of the way has done so, and what
// starts at the other end has started.
// A third argument makes it a terminal's master: console:PATH takes the one that a runtime sends to this socket (--console-socket), pty:LINE
// runs a shell's line on a terminal of its own, with nothing between. `write` then waits for a line before it begins, and for one at the end.
#include <pty.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../../test/fixtures/console_socket.h"

enum { PIECE = 1 << 16, FIRST = 1 << 20 };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int run_on_terminal(const char *line) {
  int master;
  const pid_t child = forkpty(&master, NULL, NULL, NULL);
  if (child < 0) fail("forkpty");
  if (child > 0) return master;
  execl("/bin/sh", "sh", "-c", line, (char *)NULL);
  _exit(127);
}

static void wait_for_line(int fd) {
  char next = 0;
  while (next != '\n') {
    if (read(fd, &next, 1) != 1) fail("wait for the other end");
  }
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: meter read|write BYTES [console:PATH|pty:LINE]\n");
    return 2;
  }
  static char piece[PIECE];
  const int writes = strcmp(argv[1], "write") == 0;
  const uint64_t bytes = strtoull(argv[2], NULL, 0);
  int fd = writes ? 1 : 0;
  const int terminal = argc > 3;
  if (terminal) fd = strncmp(argv[3], "console:", 8) == 0 ? receive_console(argv[3] + 8) : run_on_terminal(argv[3] + 4);
  if (writes && terminal) wait_for_line(fd);
  double begun = 0;
  uint64_t moved = 0;
  uint64_t before = 0;
  while (moved < bytes) {
    const size_t room = bytes - moved < PIECE ? (size_t)(bytes - moved) : PIECE;
    const ssize_t length = writes ? write(fd, piece, room) : read(fd, piece, room);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) break;
    moved += (uint64_t)length;
    if (before == 0 && moved >= FIRST) {
      before = moved;
      begun = now();
    }
  }
  if (writes && terminal) wait_for_line(fd);
  const double took = now() - begun;
  if (moved != bytes) {
    fprintf(stderr, "meter: %llu of %llu bytes\n", (unsigned long long)moved, (unsigned long long)bytes);
    return 1;
  }
  fprintf(stderr, "%.1f\n", (double)(bytes - before) / (1 << 20) / took);
  return 0;
}
