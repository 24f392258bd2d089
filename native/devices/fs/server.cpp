// Dispatch, session, and what the operations share.
#include "devices/fs/server.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

namespace tskata::devices::fs {

namespace {

constexpr uint32_t max_write = 1024 * 1024;
constexpr uint16_t max_pages = max_write / 4096;

}  // namespace

Server::Server(const std::string& root)
    : inodes_(os::Descriptor(os::checked(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open shared tree"))) {}

void Server::prepare_thread() {
  os::checked(::unshare(CLONE_FS), "unshare");
  ::umask(0);
  // Without the fix-up, setfsuid leaves the capabilities alone; it needs CAP_SETPCAP, and is not missed where uid 0 is all there is.
  (void)::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
}

void Server::reset() {
  handles_.clear();
  inodes_.clear();
  initialised_ = false;
}

Server::Operation Server::operation(uint32_t opcode) {
  switch (opcode) {
    case FUSE_INIT: return &Server::init;
    case FUSE_DESTROY: return &Server::destroy;
    case FUSE_STATFS: return &Server::statfs;
    case FUSE_SYNCFS: return &Server::syncfs;
    case FUSE_LOOKUP: return &Server::lookup;
    case FUSE_FORGET: return &Server::forget;
    case FUSE_BATCH_FORGET: return &Server::batch_forget;
    case FUSE_GETATTR: return &Server::getattr;
    case FUSE_SETATTR: return &Server::setattr;
    case FUSE_READLINK: return &Server::readlink;
    case FUSE_SYMLINK: return &Server::symlink;
    case FUSE_MKNOD: return &Server::mknod;
    case FUSE_MKDIR: return &Server::mkdir;
    case FUSE_UNLINK: return &Server::unlink;
    case FUSE_RMDIR: return &Server::rmdir;
    case FUSE_RENAME: return &Server::rename;
    case FUSE_RENAME2: return &Server::rename2;
    case FUSE_LINK: return &Server::link;
    case FUSE_OPEN: return &Server::open;
    case FUSE_CREATE: return &Server::create;
    case FUSE_TMPFILE: return &Server::tmpfile;
    case FUSE_READ: return &Server::read;
    case FUSE_WRITE: return &Server::write;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return &Server::release;
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: return &Server::fsync;
    case FUSE_FALLOCATE: return &Server::fallocate;
    case FUSE_LSEEK: return &Server::lseek;
    case FUSE_COPY_FILE_RANGE: return &Server::copy_file_range;
    case FUSE_OPENDIR: return &Server::opendir;
    case FUSE_READDIR: return &Server::readdir;
    case FUSE_READDIRPLUS: return &Server::readdirplus;
    case FUSE_SETXATTR: return &Server::setxattr;
    case FUSE_GETXATTR: return &Server::getxattr;
    case FUSE_LISTXATTR: return &Server::listxattr;
    case FUSE_REMOVEXATTR: return &Server::removexattr;
    // FLUSH and ACCESS are answered ENOSYS once and not asked again: close() has nothing to write back here, and permissions are
    // checked by the guest's kernel. Locks and ioctls stay in the guest.
    default: return nullptr;
  }
}

size_t Server::serve(std::span<const iovec> readable, std::span<const iovec> writable) {
  try {
    Request request(readable, writable);
    try {
      const Operation run = operation(request.header().opcode);
      if (run == nullptr) return request.reply_error(ENOSYS);
      if (!initialised_ && request.header().opcode != FUSE_INIT) return request.reply_error(EIO);
      return (this->*run)(request);
    } catch (const std::system_error& error) {
      return request.reply_error(error.code().value());
    } catch (const std::bad_alloc&) {
      return request.reply_error(ENOMEM);
    }
  } catch (const std::exception&) {
    return 0;  // no whole header: there is nothing to answer to
  }
}

size_t Server::init(Request& request) {
  struct InitIn {  // the 7.36 form; older kernels send only the first four words
    uint32_t major, minor, max_readahead, flags;
  };
  const auto in = request.take<InitIn>();
  uint32_t flags2 = 0;
  if ((in.flags & FUSE_INIT_EXT) != 0) flags2 = request.take<uint32_t>();
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) return request.reply(out);  // the kernel comes back with our version
  if (in.major < 7 || in.minor < 31) return request.reply_error(EPROTO);
  out.minor = std::min<uint32_t>(in.minor, FUSE_KERNEL_MINOR_VERSION);
  out.max_readahead = in.max_readahead;
  const uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT | FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA |
                          FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
                          FUSE_POSIX_ACL | FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_SETXATTR_EXT | FUSE_INIT_EXT;
  out.flags = in.flags & wanted;
  out.flags2 = flags2 & 0;
  out.max_background = 128;
  out.congestion_threshold = 96;
  out.max_write = max_write;
  out.max_pages = max_pages;
  out.time_gran = 1;
  inodes_.clear();
  handles_.clear();
  initialised_ = true;
  return request.reply(out);
}

size_t Server::destroy(Request& request) {
  reset();
  return request.reply_empty();
}

size_t Server::statfs(Request& request) {
  const InodeRef inode = inodes_.get(request.header().nodeid);
  struct statfs from {};
  os::checked(::fstatfs(inode->path.get(), &from), "fstatfs");
  fuse_statfs_out out{};
  out.st.blocks = from.f_blocks;
  out.st.bfree = from.f_bfree;
  out.st.bavail = from.f_bavail;
  out.st.files = from.f_files;
  out.st.ffree = from.f_ffree;
  out.st.bsize = static_cast<uint32_t>(from.f_bsize);
  out.st.namelen = static_cast<uint32_t>(from.f_namelen);
  out.st.frsize = static_cast<uint32_t>(from.f_frsize);
  return request.reply(out);
}

size_t Server::syncfs(Request& request) {
  const InodeRef inode = inodes_.get(request.header().nodeid);
  os::checked(::syncfs(reopen(*inode, O_RDONLY | O_DIRECTORY).get()), "syncfs");
  return request.reply_empty();
}

std::string Server::proc_path(const Inode& inode) const { return "/proc/self/fd/" + std::to_string(inode.path.get()); }

os::Descriptor Server::reopen(const Inode& inode, int flags) const {
  // Opening a FIFO would block, a device would act: neither is ever opened for a guest.
  if (inode.type != S_IFREG && inode.type != S_IFDIR) throw std::system_error(EINVAL, std::generic_category());
  return os::Descriptor(os::checked(::open(proc_path(inode).c_str(), flags | O_CLOEXEC), "open"));
}

// set-uid and set-gid bits go when somebody without CAP_FSETID in the guest writes (FUSE_HANDLE_KILLPRIV_V2 tells us so).
void Server::remove_set_id_bits(int fd) const {
  struct stat now {};
  if (::fstat(fd, &now) != 0 || (now.st_mode & (S_ISUID | S_ISGID)) == 0) return;
  mode_t mode = now.st_mode & 07777 & ~static_cast<mode_t>(S_ISUID);
  if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) mode &= ~static_cast<mode_t>(S_ISGID);
  if (mode != (now.st_mode & 07777)) (void)::fchmod(fd, mode);
}

}  // namespace tskata::devices::fs
