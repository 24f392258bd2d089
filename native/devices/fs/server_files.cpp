// Open files: data goes between the file and guest memory without a copy of ours.
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/fs/caller.h"
#include "devices/fs/server.h"
#include "devices/fs/set_id.h"

namespace tskata::devices::fs {

namespace {

int descriptor_for(const Handle& handle, uint32_t flags) { return (flags & O_DIRECT) != 0 && handle.direct ? handle.direct.get() : handle.fd.get(); }

// fs/fcntl.h values of the guest are x86's; an arm64 guest on an arm64 host agrees with itself likewise.
size_t moved(ssize_t result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
  return static_cast<size_t>(result);
}

}  // namespace

// Flags of the guest's open that mean something on the host. O_NOFOLLOW would stop at /proc's link; creation has its own calls. O_APPEND
// and O_DIRECT come with each request: fcntl changes them, and what the guest's cache writes back has neither.
int Server::host_flags(uint32_t flags) const {
  constexpr uint32_t kept = O_TRUNC | O_SYNC | O_DSYNC | O_NOATIME | O_LARGEFILE;
  const uint32_t access = flags & O_ACCMODE;
  return static_cast<int>((flags & kept) | (writeback_ && access == O_WRONLY ? O_RDWR : access));
}

fuse_open_out Server::open_handle(os::Descriptor fd, uint32_t flags, InodeRef inode) {
  fuse_open_out out{};
  auto handle = std::make_shared<Handle>();
  if ((flags & O_DIRECT) != 0) {
    handle->direct = own_.open(fd.get(), (host_flags(flags) & O_ACCMODE) | O_DIRECT);
  }
  // A file of the container's own stays in the guest's cache from one open to the next; a volume's is read anew.
  if (inode->policy == Policy::exclusive) out.open_flags |= inode->type == S_IFDIR ? FOPEN_CACHE_DIR : FOPEN_KEEP_CACHE;
  handle->fd = std::move(fd);
  handle->inode = std::move(inode);
  if (handle->inode->type == S_IFREG && (flags & O_ACCMODE) != O_RDONLY) handle->count_writer();
  out.fh = handles_.add(std::move(handle));
  return out;
}

size_t Server::open(Request& request) {
  const auto in = request.take<fuse_open_in>();
  if (of_agent(request) && replays_.opens(request.header().nodeid)) return request.reply(fuse_open_out{replayed_handle, 0, 0});
  InodeRef inode = inodes_.get(request.header().nodeid);
  os::Descriptor fd;
  std::optional<Changing> changing;
  if ((in.flags & O_TRUNC) != 0) changing.emplace(*inode);
  try {
    fd = reopen(*inode, host_flags(in.flags));
  } catch (const std::system_error& error) {
    // A file with the append-only attribute wants the flag.
    if (error.code().value() != EPERM || (in.flags & O_APPEND) == 0) throw;
    fd = reopen(*inode, host_flags(in.flags) | O_APPEND);
  }
  if ((in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0) remove_set_id_bits(fd.get(), request.header());
  return request.reply(open_handle(std::move(fd), in.flags, std::move(inode)));
}

void Server::require_room_to_create() {
  inodes_.require_room();
  handles_.require_room();
}

size_t Server::create(Request& request) {
  const auto in = request.take<fuse_create_in>();
  const std::string name = request.take_name();
  const InodeRef parent = inodes_.get(request.header().nodeid);
  require_room_to_create();
  os::Descriptor fd;
  {
    const Caller caller(request.header(), in.umask);
    // O_EXCL first: without it a FIFO of that name would be opened. An existing file is looked up and opened as any other.
    const int flags = host_flags(in.flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    fd.reset(::openat(inodes_.path(*parent)->get(), name.c_str(), flags, in.mode & 07777));
    if (!fd && (errno != EEXIST || (in.flags & O_EXCL) != 0)) throw std::system_error(errno, std::generic_category(), "openat");
  }
  return reply_created(request, lookup_name(*parent, name, Origin::made), in, std::move(fd));
}

size_t Server::tmpfile(Request& request) {
  const auto in = request.take<fuse_create_in>();
  const InodeRef parent = inodes_.get(request.header().nodeid);
  require_room_to_create();
  os::Descriptor fd;
  {
    const Caller caller(request.header(), in.umask);
    const int flags = (host_flags(in.flags) & ~O_TRUNC) | O_TMPFILE | O_CLOEXEC | static_cast<int>(in.flags & O_EXCL);
    fd.reset(os::checked(::openat(inodes_.path(*parent)->get(), ".", flags, in.mode & 07777), "openat"));
  }
  const fuse_entry_out entry = entry_for(own_.open(fd.get(), O_PATH), parent->policy, *parent, Origin::made);
  return reply_created(request, entry, in, std::move(fd));
}

// `entry` has been counted; `fd` is empty for a file that was there.
size_t Server::reply_created(Request& request, const fuse_entry_out& entry, const fuse_create_in& in, os::Descriptor fd) {
  struct {
    fuse_entry_out entry;
    fuse_open_out open;
  } out{};
  out.entry = entry;
  try {
    InodeRef inode = inodes_.get(entry.nodeid);
    std::optional<Changing> changing;
    if (!fd) {
      if ((in.flags & O_TRUNC) != 0) changing.emplace(*inode);
      fd = reopen(*inode, host_flags(in.flags));
      if ((in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0) remove_set_id_bits(fd.get(), request.header());
    }
    out.open = open_handle(std::move(fd), in.flags, std::move(inode));
    return request.reply(out);
  } catch (...) {
    forget_node(entry.nodeid, 1);  // the guest is told of no entry
    throw;
  }
}

size_t Server::read(Request& request) {
  const auto in = request.take<fuse_read_in>();
  if (in.offset > INT64_MAX) throw malformed();
  const HandleRef handle = handles_.get(in.fh);
  const std::vector<iovec> pieces = request.reply_pieces(in.size);
  const ssize_t got = ::preadv(descriptor_for(*handle, in.flags), pieces.data(), static_cast<int>(pieces.size()), static_cast<off_t>(in.offset));
  return request.reply_written(moved(got, "preadv"));
}

size_t Server::write(Request& request) {
  const auto in = request.take<fuse_write_in>();
  if (in.offset > INT64_MAX) throw malformed();
  const HandleRef handle = handles_.get(in.fh);
  const std::vector<iovec> pieces = request.pieces(in.size);
  const Changing changing(*handle->inode);
  // What the cache writes back goes to its place whichever open file it goes by. A guest that writes back knows the end: ours may be behind it.
  const bool at_end = !writeback_ && (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0;
  const ssize_t put = ::pwritev2(descriptor_for(*handle, in.flags), pieces.data(), static_cast<int>(pieces.size()), static_cast<off_t>(in.offset),
                                 at_end ? RWF_APPEND : 0);
  fuse_write_out out{};
  out.size = static_cast<uint32_t>(moved(put, "pwritev2"));
  if ((in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) remove_set_id_bits(handle->fd.get(), request.header());
  return request.reply(out);
}

size_t Server::release(Request& request) {
  const uint64_t number = request.take<fuse_release_in>().fh;
  if (number == replayed_handle) return request.reply_empty();
  const HandleRef handle = handles_.remove(number);
  if (handle->writes) inodes_.stamp(*handle->inode, handle->fd.get());
  return request.reply_empty();
}

size_t Server::fsync(Request& request) {
  const auto in = request.take<fuse_fsync_in>();
  const HandleRef handle = handles_.get(in.fh);
  const bool data_only = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  os::checked(data_only ? ::fdatasync(handle->fd.get()) : ::fsync(handle->fd.get()), "fsync");
  return request.reply_empty();
}

size_t Server::fallocate(Request& request) {
  const auto in = request.take<fuse_fallocate_in>();
  if (in.offset > INT64_MAX || in.length > INT64_MAX) throw malformed();
  const HandleRef handle = handles_.get(in.fh);
  const Changing changing(*handle->inode);
  os::checked(::fallocate(handle->fd.get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset), static_cast<off_t>(in.length)), "fallocate");
  remove_set_id_bits_unless_root(handle->fd.get(), request.header());
  return request.reply_empty();
}

size_t Server::lseek(Request& request) {
  if (!seeks_) return request.reply_error(ENOSYS);  // then the guest's kernel takes all up to the end for data
  const auto in = request.take<fuse_lseek_in>();
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) throw malformed();
  const HandleRef handle = handles_.get(in.fh);
  const off_t at = ::lseek(handle->fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (at < 0) throw std::system_error(errno, std::generic_category(), "lseek");
  return request.reply(fuse_lseek_out{static_cast<uint64_t>(at)});
}

size_t Server::copy_file_range(Request& request) {
  const auto in = request.take<fuse_copy_file_range_in>();
  const HandleRef from = handles_.get(in.fh_in);
  const HandleRef to = handles_.get(in.fh_out);
  if (in.off_in > INT64_MAX || in.off_out > INT64_MAX) throw malformed();
  off_t source = static_cast<off_t>(in.off_in);
  off_t target = static_cast<off_t>(in.off_out);
  fuse_write_out out{};
  const Changing changing(*to->inode);
  // The reply's count has 32 bits; the guest asks again for what is left.
  const size_t length = std::min<uint64_t>(in.len, 1u << 30);
  const ssize_t copied = ::copy_file_range(from->fd.get(), &source, to->fd.get(), &target, length, 0);
  out.size = static_cast<uint32_t>(moved(copied, "copy_file_range"));
  remove_set_id_bits_unless_root(to->fd.get(), request.header());
  return request.reply(out);
}

}  // namespace tskata::devices::fs
