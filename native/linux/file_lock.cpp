#include "linux/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace tskata::linux_calls {

std::optional<int> try_lock_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "open");
  int result;
  do {
    result = flock(fd, LOCK_EX | LOCK_NB);
  } while (result < 0 && errno == EINTR);
  if (result == 0) return fd;
  const int error = errno;
  close(fd);
  if (error == EWOULDBLOCK) return std::nullopt;
  throw std::system_error(error, std::generic_category(), "flock");
}

}  // namespace tskata::linux_calls
