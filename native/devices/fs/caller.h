// Acting as the guest process that asked, for operations that create something.
#pragma once
#include <linux/fuse.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

namespace tskata::devices::fs {

// The calling thread's umask, which is its own (Server::prepare_thread). Only what creates something looks at it, and sets it before: so it stays
// until another is wanted.
inline thread_local mode_t thread_umask = 0;

inline void set_thread_umask(mode_t wanted) {
  ::umask(wanted);
  thread_umask = wanted;
}

// For the life of the object, what this thread creates belongs to the caller, under the caller's umask. The thread's capabilities stay (see
// Server::prepare_thread), so the kernel applies its rules for owners and set-gid folders and refuses nothing the guest allowed.
class Caller {
 public:
  explicit Caller(const fuse_in_header& header, mode_t umask = 0) : gid_(header.gid), uid_(header.uid) {
    if (gid_ != 0) ::setfsgid(gid_);
    if (uid_ != 0) ::setfsuid(uid_);
    if (const mode_t wanted = umask & 0777; wanted != thread_umask) set_thread_umask(wanted);
  }
  ~Caller() {
    if (uid_ != 0) ::setfsuid(0);
    if (gid_ != 0) ::setfsgid(0);
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

 private:
  gid_t gid_;
  uid_t uid_;
};

}  // namespace tskata::devices::fs
