// A file server's side of its handles' keeper (protocol.h). Not thread-safe: the table of nodes guards it.
#pragma once
#include <cstdint>
#include <unordered_map>

#include "keeper/protocol.h"
#include "linux/fd_passing.h"

namespace tskata::keeper {

class Client {
 public:
  // Without a socket there is no keeper.
  explicit Client(os::Descriptor socket) : socket_(std::move(socket)) {}

  bool present() const { return static_cast<bool>(socket_); }
  // Whether a file of this mount may be kept, as far as is known.
  bool may_keep(uint64_t mount) const;
  // A number for the file's handle; 0 where it cannot be kept. `folder`: an open one of the mount, by which its handles are opened; -1: none at hand,
  // then the first of a mount cannot be kept for now.
  uint32_t keep(uint64_t mount, int path, int folder);
  // Throws ESTALE when the file is no more.
  os::Descriptor open(uint32_t number);
  bool same(uint32_t number, int path);
  void drop(uint32_t number, uint64_t mount);
  // The next handle of the mount is kept by another folder.
  void leave(uint64_t mount);
  void clear();

 private:
  // Of a mount: how many handles are kept; none ever can be.
  struct Mount {
    size_t kept = 0;
    bool refused = false;
  };

  os::Packet ask(const Request& request, int fd);
  void tell(const Request& request);
  bool anchor(uint64_t mount, int folder);

  os::Descriptor socket_;
  std::unordered_map<uint64_t, Mount> mounts_;
};

}  // namespace tskata::keeper
