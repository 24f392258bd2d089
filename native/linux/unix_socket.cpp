// Unix sockets by path.
#include "linux/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

#include "linux/proc_path.h"

namespace tskata::os {

namespace {

// sun_path holds 108 bytes; a longer path is reached through /proc/self/fd/<folder>/<name>.
struct Address {
  sockaddr_un address{};
  Descriptor folder;

  explicit Address(const std::string& path) {
    address.sun_family = AF_UNIX;
    std::string usable = path;
    if (path.size() >= sizeof address.sun_path) {
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) throw std::system_error(ENAMETOOLONG, std::generic_category(), "socket path");
      folder.reset(checked(::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open"));
      usable = proc_path(folder.get()) + path.substr(slash);
      if (usable.size() >= sizeof address.sun_path) throw std::system_error(ENAMETOOLONG, std::generic_category(), "socket path");
    }
    std::memcpy(address.sun_path, usable.c_str(), usable.size() + 1);
  }

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

}  // namespace

Descriptor listen_unix(const std::string& path, int type, int backlog) {
  const Address address(path);
  Descriptor socket(checked(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  ::unlink(path.c_str());
  checked(::bind(socket.get(), address.get(), sizeof(sockaddr_un)), "bind");
  checked(::chmod(path.c_str(), 0600), "chmod");
  checked(::listen(socket.get(), backlog), "listen");
  return socket;
}

Descriptor connect_unix(const std::string& path, int type) {
  const Address address(path);
  Descriptor socket(checked(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket"));
  checked(::connect(socket.get(), address.get(), sizeof(sockaddr_un)), "connect");
  return socket;
}

}  // namespace tskata::os
