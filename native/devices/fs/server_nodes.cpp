// Names and attributes: lookup, creation, removal, renaming, links.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>

#include "devices/fs/caller.h"
#include "devices/fs/protocol.h"
#include "devices/fs/server.h"
#include "devices/fs/set_id.h"

namespace tskata::devices::fs {

namespace {

constexpr size_t max_symlink = 4095;
constexpr uint32_t max_forgets = 1024 * 1024 / sizeof(fuse_forget_one);
constexpr unsigned statx_mask = STATX_BASIC_STATS | STATX_MNT_ID;

// None where there is no such name.
os::Descriptor open_component(int folder, const std::string& name) {
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const auto fd = static_cast<int>(::syscall(SYS_openat2, folder, name.c_str(), &how, sizeof how));
  if (fd < 0 && errno != ENOENT) throw std::system_error(errno, std::generic_category(), "openat2");
  return os::Descriptor(fd);
}

// What a guest may not have of a volume that shows a /proc: this process and its threads, whose memory is a file there that a process may
// always open of itself; and the memory of any other, which this one's uid may open of a hypervisor.
bool is_kept_back(int folder, const std::string& name) {
  struct statx facts {};
  return name == "mem" || ::statx(folder, ("self/task/" + name).c_str(), AT_SYMLINK_NOFOLLOW, STATX_INO, &facts) == 0;
}

struct statx stat_of(int fd, unsigned further = 0) {
  struct statx out {};
  os::checked(::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, statx_mask | further, &out), "statx");
  return out;
}

Policy policy_below(Policy parent, const std::string& name) {
  switch (parent) {
    case Policy::root: return Policy::container;
    case Policy::container: return name == "rootfs" ? Policy::exclusive : name == "own" ? Policy::own : Policy::mounts;
    case Policy::own: return Policy::exclusive;
    case Policy::mounts: return Policy::shared;
    default: return parent;
  }
}

// Seconds the guest may keep a name and its attributes. Only what is the pod's own is worth keeping: another volume changes under us,
// and its atomic symlink swaps must be seen at once. Not for ever, since `docker cp` writes into a running container's tree too.
uint64_t valid_seconds(Policy policy) { return policy == Policy::exclusive ? 5 : 0; }

uint32_t guest_device(uint32_t major, uint32_t minor) {
  // The kernel's new_encode_dev: what fuse_attr.rdev holds.
  return (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

dev_t host_device(uint32_t guest) { return makedev((guest >> 8) & 0xfff, (guest & 0xff) | ((guest >> 12) & 0xfff00)); }

}  // namespace

fuse_attr Server::attributes(const struct statx& from, uint64_t number) const {
  fuse_attr out{};
  out.ino = number;
  out.size = from.stx_size;
  out.blocks = from.stx_blocks;
  out.atime = static_cast<uint64_t>(from.stx_atime.tv_sec);
  out.mtime = static_cast<uint64_t>(from.stx_mtime.tv_sec);
  out.ctime = static_cast<uint64_t>(from.stx_ctime.tv_sec);
  out.atimensec = from.stx_atime.tv_nsec;
  out.mtimensec = from.stx_mtime.tv_nsec;
  out.ctimensec = from.stx_ctime.tv_nsec;
  out.mode = from.stx_mode;
  out.nlink = from.stx_nlink;
  out.uid = from.stx_uid;
  out.gid = from.stx_gid;
  out.rdev = guest_device(from.stx_rdev_major, from.stx_rdev_minor);
  out.blksize = from.stx_blksize;
  return out;
}

fuse_entry_out Server::entry_for(os::Descriptor path, Policy policy, const Inode& folder, Origin origin) {
  const struct statx from = stat_of(path.get());
  const InodeRef inode = inodes_.remember(std::move(path), from, policy, folder, origin);
  if (policy == Policy::shared && !inode->watched) watch(*inode, from.stx_mnt_id, folder);
  return entry_of(*inode, from);
}

fuse_entry_out Server::entry_of(const Inode& inode, const struct statx& from) const {
  fuse_entry_out out{};
  out.nodeid = inode.id;
  out.entry_valid = valid_seconds(inode.policy);
  out.attr_valid = out.entry_valid;
  out.attr = attributes(from, inode.number);
  return out;
}

fuse_entry_out Server::lookup_name(Inode& parent, const std::string& name, Origin origin) {
  const std::optional<fuse_entry_out> found = find_name(parent, name, origin);
  if (!found) throw std::system_error(ENOENT, std::generic_category());
  return *found;
}

// None where there is no such name.
std::optional<fuse_entry_out> Server::find_name(Inode& parent, const std::string& name, Origin origin) {
  const PathRef folder = inodes_.path(parent);
  if (InodeTable::shows_processes(parent) && is_kept_back(folder->get(), name)) return std::nullopt;
  const Policy policy = policy_below(parent.policy, name);
  // What the guest may not keep it asks for again and again: most likely it knows the node.
  if (valid_seconds(policy) == 0) {
    struct statx from {};
    const int failed = ::statx(folder->get(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, statx_mask, &from);
    if (failed != 0 && errno == ENOENT) return std::nullopt;
    const InodeRef known = failed != 0 ? nullptr : inodes_.remember_again(from, policy);
    if (known) return noted(parent, name, entry_of(*known, from));
  }
  os::Descriptor path = open_component(folder->get(), name);
  if (!path) return std::nullopt;
  return noted(parent, name, entry_for(std::move(path), policy, parent, origin));
}

const fuse_entry_out& Server::noted(const Inode& parent, const std::string& name, const fuse_entry_out& entry) {
  if (parent.watched) replays_.note(parent.id, name, entry.nodeid);
  return entry;
}

// A volume's folders, and a volume that is a file. What files of a folder go through the folder tells.
void Server::watch(Inode& inode, uint64_t mount, const Inode& folder) {
  if (!watch_) return;
  const bool top = folder.policy == Policy::mounts;
  if (inode.type != S_IFDIR && !(top && inode.type == S_IFREG)) return;
  if (!inode.watched.exchange(true)) watch_->add(inode.id, mount, inodes_.path(inode)->get(), top);
}

void Server::forget_node(uint64_t id, uint64_t count) {
  const InodeRef gone = inodes_.forget(id, count);
  if (!gone) return;
  replays_.forget(id);
  if (gone->watched) watch_->remove(id, gone->ways.front().path ? gone->ways.front().path->get() : -1);
}

size_t Server::lookup(Request& request) {
  const std::string name = request.take_name();
  const uint64_t folder = request.header().nodeid;
  if (of_agent(request)) {
    if (folder == InodeTable::root_id && name.starts_with(node_name)) return request.reply(lookup_node(name.substr(node_name.size())));
    if (const auto change = replays_.looked_up(folder, name)) return request.reply(replayed_lookup(*change, folder, name));
  }
  const InodeRef parent = inodes_.get(folder);
  if (const auto found = find_name(*parent, name)) return request.reply(*found);
  // Where names may be kept, so may it be that there is none: an entry without a node.
  fuse_entry_out none{};
  none.entry_valid = valid_seconds(parent->policy);
  return none.entry_valid == 0 ? request.reply_error(ENOENT) : request.reply(none);
}

size_t Server::forget(Request& request) {
  const auto in = request.take<fuse_forget_in>();
  forget_node(request.header().nodeid, in.nlookup);
  return 0;
}

size_t Server::batch_forget(Request& request) {
  const auto in = request.take<fuse_batch_forget_in>();
  // A chain may name the same memory over and over and so hold any count; the largest request there is (max_write) holds this many.
  if (in.count > max_forgets) throw malformed();
  for (uint32_t i = 0; i < in.count; ++i) {
    const auto one = request.take<fuse_forget_one>();
    forget_node(one.nodeid, one.nlookup);
  }
  return 0;
}

fuse_attr_out Server::attributes_reply(const Inode& inode, int fd) const { return attributes_reply(inode, stat_of(fd)); }

fuse_attr_out Server::attributes_reply(const Inode& inode, const struct statx& from) const {
  fuse_attr_out out{};
  out.attr_valid = valid_seconds(inode.policy);
  out.attr = attributes(from, inode.number);
  return out;
}

// Attributes of the request's node, by an open file of it where the guest names one. `further` ones cost a filesystem of the host's more, maybe.
Server::Look Server::look_at_node(const Request& request, uint32_t flags, uint64_t handle, unsigned further) {
  const uint64_t node = request.header().nodeid;
  if (Replays::is_ghost(node)) return {Replays::ghost_attributes(node), {}};
  const InodeRef inode = inodes_.get(node);
  const bool by_handle = (flags & FUSE_GETATTR_FH) != 0;
  const struct statx from = stat_of(by_handle ? handles_.get(handle)->fd.get() : inodes_.path(*inode)->get(), further);
  Look out{attributes_reply(*inode, from), {}};
  if (!by_handle && of_agent(request)) out.reply.attr.nlink = std::max(out.reply.attr.nlink, 1u);  // of a file whose removal is replayed later
  if ((from.stx_mask & STATX_BTIME) != 0) out.birth = from.stx_btime;
  return out;
}

size_t Server::getattr(Request& request) {
  const auto in = request.take<fuse_getattr_in>();
  return request.reply(look_at_node(request, in.getattr_flags, in.fh).reply);
}

size_t Server::statx(Request& request) {
  const auto in = request.take<StatxIn>();
  const Look look = look_at_node(request, in.getattr_flags, in.fh, STATX_BTIME);
  const fuse_attr& from = look.reply.attr;
  StatxOut out{};
  out.attr_valid = look.reply.attr_valid;
  out.mask = STATX_BASIC_STATS | (look.birth ? STATX_BTIME : 0);
  out.blksize = from.blksize;
  out.nlink = from.nlink;
  out.uid = from.uid;
  out.gid = from.gid;
  out.mode = static_cast<uint16_t>(from.mode);
  out.ino = from.ino;
  out.size = from.size;
  out.blocks = from.blocks;
  out.atime = {static_cast<int64_t>(from.atime), from.atimensec, 0};
  out.ctime = {static_cast<int64_t>(from.ctime), from.ctimensec, 0};
  out.mtime = {static_cast<int64_t>(from.mtime), from.mtimensec, 0};
  if (look.birth) out.btime = {look.birth->tv_sec, look.birth->tv_nsec, 0};
  out.rdev_major = from.rdev >> 8 & 0xfff;  // as guest_device has put them together
  out.rdev_minor = (from.rdev & 0xff) | (from.rdev >> 12 & 0xfff00);
  return request.reply(out);
}

size_t Server::setattr(Request& request) {
  const auto in = request.take<fuse_setattr_in>();
  if (watch_ && (in.valid & FATTR_MTIME) != 0 && in.mtime == replayed_time) return replayed_setattr(request);
  const InodeRef inode = inodes_.get(request.header().nodeid);
  const PathRef path = inodes_.path(*inode);
  change_attributes(request, in, *inode, path->get());
  if ((in.valid & (FATTR_SIZE | FATTR_MTIME)) != 0) inodes_.stamp(*inode, path->get());
  return request.reply(attributes_reply(*inode, path->get()));
}

void Server::change_attributes(const Request& request, const fuse_setattr_in& in, Inode& inode, int path) {
  const HandleRef handle = (in.valid & FATTR_FH) != 0 ? handles_.get(in.fh) : nullptr;
  const Changing changing(inode);
  // Owner before mode: a change of owner clears set-id bits that the mode may set anew.
  if ((in.valid & (FATTR_UID | FATTR_GID)) != 0) {
    const uid_t uid = (in.valid & FATTR_UID) != 0 ? in.uid : static_cast<uid_t>(-1);
    const gid_t gid = (in.valid & FATTR_GID) != 0 ? in.gid : static_cast<gid_t>(-1);
    os::checked(::fchownat(path, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW), "fchownat");
  }
  if ((in.valid & FATTR_MODE) != 0) {
    if (inode.type == S_IFLNK) throw std::system_error(EOPNOTSUPP, std::generic_category());
    os::checked(::fchmodat(own_.folder(), os::OwnDescriptors::name(path).c_str(), in.mode & 07777, 0), "fchmodat");
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    if (in.size > INT64_MAX) throw malformed();
    const os::Descriptor opened = handle ? os::Descriptor() : reopen(inode, O_WRONLY);
    const int fd = handle ? handle->fd.get() : opened.get();
    os::checked(::ftruncate(fd, static_cast<off_t>(in.size)), "ftruncate");
    if ((in.valid & FATTR_KILL_SUIDGID) != 0) remove_set_id_bits(fd, request.header());
  }
  if ((in.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
    std::array<timespec, 2> times{{{0, UTIME_OMIT}, {0, UTIME_OMIT}}};
    if ((in.valid & FATTR_ATIME_NOW) != 0) times[0].tv_nsec = UTIME_NOW;
    else if ((in.valid & FATTR_ATIME) != 0) times[0] = {static_cast<time_t>(in.atime), static_cast<long>(in.atimensec)};
    if ((in.valid & FATTR_MTIME_NOW) != 0) times[1].tv_nsec = UTIME_NOW;
    else if ((in.valid & FATTR_MTIME) != 0) times[1] = {static_cast<time_t>(in.mtime), static_cast<long>(in.mtimensec)};
    os::checked(::utimensat(path, "", times.data(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW), "utimensat");
  }
}

size_t Server::readlink(Request& request) {
  const InodeRef inode = inodes_.get(request.header().nodeid);
  std::array<char, 4096> target;
  const ssize_t length = ::readlinkat(inodes_.path(*inode)->get(), "", target.data(), target.size());
  os::checked(static_cast<int>(length), "readlinkat");
  return request.reply(std::as_bytes(std::span(target.data(), static_cast<size_t>(length))));
}

size_t Server::symlink(Request& request) {
  const std::string name = request.take_name();
  const std::string target = request.take_string(max_symlink);
  const InodeRef parent = inodes_.get(request.header().nodeid);
  inodes_.require_room();
  {
    const Caller caller(request.header());
    os::checked(::symlinkat(target.c_str(), inodes_.path(*parent)->get(), name.c_str()), "symlinkat");
  }
  return request.reply(lookup_name(*parent, name, Origin::made));
}

size_t Server::mknod(Request& request) {
  const auto in = request.take<fuse_mknod_in>();
  const std::string name = request.take_name();
  const InodeRef parent = inodes_.get(request.header().nodeid);
  if (of_agent(request) && replays_.take(ChangeKind::create, parent->id, name)) return replayed_create(request, *parent, name, false);
  inodes_.require_room();
  {
    const Caller caller(request.header(), in.umask);
    os::checked(::mknodat(inodes_.path(*parent)->get(), name.c_str(), in.mode, host_device(in.rdev)), "mknodat");
  }
  return request.reply(lookup_name(*parent, name, Origin::made));
}

size_t Server::mkdir(Request& request) {
  const auto in = request.take<fuse_mkdir_in>();
  const std::string name = request.take_name();
  const InodeRef parent = inodes_.get(request.header().nodeid);
  if (of_agent(request) && replays_.take(ChangeKind::create, parent->id, name)) return replayed_create(request, *parent, name, true);
  inodes_.require_room();
  {
    const Caller caller(request.header(), in.umask);
    os::checked(::mkdirat(inodes_.path(*parent)->get(), name.c_str(), in.mode), "mkdirat");
  }
  return request.reply(lookup_name(*parent, name, Origin::made));
}

size_t Server::unlink(Request& request) { return remove_name(request, 0); }

size_t Server::rmdir(Request& request) { return remove_name(request, AT_REMOVEDIR); }

size_t Server::remove_name(Request& request, int flags) {
  const std::string name = request.take_name();
  if (of_agent(request) && replays_.take(ChangeKind::remove, request.header().nodeid, name)) return request.reply_empty();
  os::checked(::unlinkat(inodes_.path(*inodes_.get(request.header().nodeid))->get(), name.c_str(), flags), "unlinkat");
  return request.reply_empty();
}

size_t Server::rename_with(Request& request, uint64_t new_parent, unsigned flags) {
  const std::string from = request.take_name();
  const std::string to = request.take_name();
  if (of_agent(request) && replays_.take(ChangeKind::rename, request.header().nodeid, from)) return request.reply_empty();
  const InodeRef source = inodes_.get(request.header().nodeid);
  const InodeRef target = inodes_.get(new_parent);
  const PathRef old_folder = inodes_.path(*source);
  const PathRef new_folder = inodes_.path(*target);
  os::checked(static_cast<int>(::syscall(SYS_renameat2, old_folder->get(), from.c_str(), new_folder->get(), to.c_str(), flags)), "renameat2");
  return request.reply_empty();
}

size_t Server::rename(Request& request) { return rename_with(request, request.take<fuse_rename_in>().newdir, 0); }

size_t Server::rename2(Request& request) {
  const auto in = request.take<fuse_rename2_in>();
  return rename_with(request, in.newdir, in.flags);
}

size_t Server::link(Request& request) {
  const auto in = request.take<fuse_link_in>();
  const std::string name = request.take_name();
  const InodeRef inode = inodes_.get(in.oldnodeid);
  const InodeRef parent = inodes_.get(request.header().nodeid);
  // By way of /proc: linkat with AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
  const PathRef path = inodes_.path_beside(*inode, *parent);
  const std::string source = os::OwnDescriptors::name(path->get());
  os::checked(::linkat(own_.folder(), source.c_str(), inodes_.path(*parent)->get(), name.c_str(), AT_SYMLINK_FOLLOW), "linkat");
  return request.reply(lookup_name(*parent, name, Origin::made));
}

}  // namespace tskata::devices::fs
