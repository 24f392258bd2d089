// Acting as the guest process that asked, for operations that create something.
#pragma once
#include <linux/fuse.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

namespace tskata::devices::fs {

// For the life of the object, what this thread creates belongs to the caller, under the caller's umask. The thread's capabilities stay (see
// Server::prepare_thread), so the kernel applies its rules for owners and set-gid folders and refuses nothing the guest allowed.
class Caller {
 public:
  explicit Caller(const fuse_in_header& header, mode_t umask = 0) {
    ::setfsgid(header.gid);
    ::setfsuid(header.uid);
    ::umask(umask & 0777);
  }
  ~Caller() {
    ::umask(0);
    ::setfsuid(0);
    ::setfsgid(0);
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;
};

}  // namespace tskata::devices::fs
