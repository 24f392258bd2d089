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
#include <climits>

#include "devices/fs/caller.h"
#include "devices/fs/protocol.h"
#include "linux/proc_path.h"
#include "linux/mount_table.h"

namespace tskata::devices::fs {

namespace {

constexpr uint32_t max_write = 1024 * 1024;
constexpr uint16_t max_pages = max_write / 4096;

// Below the folder, relative to it.
std::vector<std::string> mounts_of_tree(int folder) {
  std::array<char, PATH_MAX> link;
  const ssize_t length = ::readlinkat(AT_FDCWD, os::proc_path(folder).c_str(), link.data(), link.size());
  os::checked(static_cast<int>(length), "readlinkat");
  const std::string top(link.data(), static_cast<size_t>(length));
  const os::Descriptor proc(os::checked(::open("/proc/thread-self", O_PATH | O_DIRECTORY | O_CLOEXEC), "open /proc/thread-self"));
  std::vector<std::string> out;
  for (const std::string& point : os::mount_points(proc.get(), top)) {
    if (point.size() > top.size()) out.push_back(point.substr(top.size() + 1));
  }
  return out;
}

// An errno, or 0. A mount that has gone meanwhile, or whose name leads elsewhere by now, has nothing to be waited for.
int sync_mount(int top, const std::string& point) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const os::Descriptor found(static_cast<int>(::syscall(SYS_openat2, top, point.c_str(), &how, sizeof how)));
  struct stat facts {};
  if (!found || ::fstat(found.get(), &facts) != 0 || (!S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode))) return 0;
  const os::Descriptor opened(::open(os::proc_path(found.get()).c_str(), O_RDONLY | O_CLOEXEC));
  return !opened || ::syncfs(opened.get()) == 0 ? 0 : errno;
}

}  // namespace

Server::Server(ServerOptions options)
    : writeback_(options.writeback),
      inodes_({os::Descriptor(os::checked(::open(options.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open shared tree")),
               std::move(options.keeper), options.descriptor_budget, options.writeback, options.share}),
      handles_(options.share) {
  if (!writeback_) watch_.emplace();
}

void Server::prepare_thread() {
  os::checked(::unshare(CLONE_FS), "unshare");
  set_thread_umask(0);
  // Without the fix-up, setfsuid leaves the capabilities alone; it needs CAP_SETPCAP, and is not missed where uid 0 is all there is.
  (void)::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
}

void Server::reset() {
  if (watch_) watch_->clear();
  replays_.clear();
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
    case opcode_statx: return &Server::statx;
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
    // FLUSH and ACCESS are answered ENOSYS once and not asked again: what close() has to write back are WRITEs, which come before the FLUSH would,
    // and permissions are checked by the guest's kernel. Locks and ioctls stay in the guest.
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
  const uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
                          FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_POSIX_ACL |
                          FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_SETXATTR_EXT | FUSE_INIT_EXT |
                          (writeback_ ? FUSE_WRITEBACK_CACHE : 0);
  out.flags = in.flags & wanted;
  out.flags2 = flags2 & (flag2_lseek_writes_back | flag2_lookup_plus | flag2_enfile_forgets);
  out.max_background = 128;
  out.congestion_threshold = 96;
  out.max_write = max_write;
  out.max_pages = max_pages;
  out.time_gran = 1;
  reset();
  seeks_ = !writeback_ || (flags2 & flag2_lseek_writes_back) != 0;
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
  os::checked(::fstatfs(inodes_.path(*inode)->get(), &from), "fstatfs");
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

// The guest's kernel names the root whatever file its caller named: everything that is mounted in the tree is meant. The agent's own is about what
// the guest had not written back, and that has come before this: it waits for no disk. (That it is the agent's is the guest's word.)
size_t Server::syncfs(Request& request) {
  if (writeback_ && of_agent(request)) return request.reply_empty();
  const InodeRef inode = inodes_.get(request.header().nodeid);
  const PathRef top = inodes_.path(*inode);
  os::checked(::syncfs(reopen(*inode, O_RDONLY).get()), "syncfs");
  if (inode->id != InodeTable::root_id) return request.reply_empty();
  int failure = 0;
  for (const std::string& point : mounts_of_tree(top->get())) {
    const int error = sync_mount(top->get(), point);
    if (failure == 0) failure = error;
  }
  return failure == 0 ? request.reply_empty() : request.reply_error(failure);
}

os::Descriptor Server::reopen(Inode& inode, int flags) {
  // Opening a FIFO would block, a device would act: neither is ever opened for a guest.
  if (inode.type != S_IFREG && inode.type != S_IFDIR) throw std::system_error(EINVAL, std::generic_category());
  return own_.open(inodes_.path(inode)->get(), flags);
}

}  // namespace tskata::devices::fs
