// Cases of the fs device: FUSE requests as a guest's kernel sends them, and as it never would.
#include <dirent.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "devices/fs/protocol.h"
#include "devices/fs/replays.h"
#include "fuzz/fs_guest.h"
#include "keeper/client.h"

namespace tskata::testing {

namespace {

void before_init() {
  Guest guest(false);
  expect(guest.lookup(root, "c1").error == EIO, "nothing before INIT");
  expect(guest.call(FUSE_INIT, 0, bytes_of(std::array<uint32_t, 4>{6, 0, 0, 0})).error == EPROTO, "an old protocol is refused");
  expect(guest.call(FUSE_INIT, 0, bytes_of(std::array<uint32_t, 4>{8, 0, 0, 0})).as<fuse_init_out>().major == 7, "a new one is told ours");
  expect(guest.lookup(root, "c1").error == EIO, "nor is the session open yet");
  expect(guest.init().error == 0 && guest.lookup(root, "c1").error == 0, "then it is");
}

void lookup() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const auto entry = guest.lookup(rootfs, "file").as<fuse_entry_out>();
  expect(S_ISREG(entry.attr.mode) && entry.attr.size == 7, "attributes");
  expect(entry.entry_valid > 0 && entry.attr_valid > 0, "the container's own tree may be cached");
  expect(guest.lookup(rootfs, "file").as<fuse_entry_out>().nodeid == entry.nodeid, "one file is one node");
  expect(guest.absent(rootfs, "absent"), "what is not there");
  expect(guest.lookup(entry.nodeid, "x").error == ENOTDIR, "below a file");
  expect(guest.lookup(guest.node("c1/mounts"), "v").as<fuse_entry_out>().entry_valid == 0, "a volume may not be cached");
}

void names() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  for (const std::string name : {"..", ".", "", "../rootfs", "dir/..", "/", "/etc/passwd", "dir/"}) {
    expect(guest.lookup(rootfs, name).error == EINVAL, "LOOKUP of \"" + name + "\"");
    expect(guest.call(FUSE_UNLINK, rootfs, text(name)).error == EINVAL, "UNLINK of \"" + name + "\"");
    expect(guest.call(FUSE_MKDIR, rootfs, bytes_of(fuse_mkdir_in{0755, 0}, text(name))).error == EINVAL, "MKDIR of \"" + name + "\"");
    expect(guest.call(FUSE_CREATE, rootfs, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text(name))).error == EINVAL, "CREATE of \"" + name + "\"");
    expect(guest.call(FUSE_RENAME, rootfs, bytes_of(fuse_rename_in{rootfs}, text("file"), text(name))).error == EINVAL, "RENAME to \"" + name + "\"");
    expect(guest.call(FUSE_SYMLINK, rootfs, bytes_of(text(name), text("target"))).error == EINVAL, "SYMLINK at \"" + name + "\"");
  }
  expect(guest.lookup(root, "..").error == EINVAL, "above the root");
  expect(guest.lookup(rootfs, std::string(300, 'n')).error == ENAMETOOLONG, "a long name");
}

void read_file() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const uint64_t handle = guest.open(file);
  expect(guest.read(file, handle, 0, 4096).body == "content", "the whole file");
  expect(guest.read(file, handle, 3, 2).body == "te", "a part");
  expect(guest.read(file, handle, 100, 10).body.empty(), "beyond the end");
  expect(guest.read(file, handle, UINT64_MAX, 10).error == EINVAL, "at no offset");
  expect(guest.write(file, handle, 0, "x").error == EBADF, "a handle for reading does not write");
  expect(guest.call(FUSE_RELEASE, file, bytes_of(fuse_release_in{handle, 0, 0, 0})).error == 0, "RELEASE");
  expect(guest.read(file, handle, 0, 10).error == EBADF, "a released handle");
}

void write_file() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const uint64_t handle = guest.open(file, O_RDWR);
  const std::string data(200'000, 'w');
  expect(guest.write(file, handle, 3, data).as<fuse_write_out>().size == data.size(), "all is written");
  expect(guest.content(guest.host("c1/rootfs/file")) == "con" + data, "the host sees it");
  fuse_write_in in{};
  in.fh = handle;
  in.size = 5000;
  expect(guest.call(FUSE_WRITE, file, bytes_of(in, std::string("short"))).error == EINVAL, "more told than sent");
}

void create() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const Reply made = guest.call(FUSE_CREATE, rootfs, bytes_of(fuse_create_in{O_RDWR, 0666, 022, 0}, text("new")));
  const auto entry = made.as<fuse_entry_out>();
  const auto opened = made.as<fuse_open_out>(sizeof(fuse_entry_out));
  expect((entry.attr.mode & 07777) == 0644, "mode and umask");
  expect(guest.write(entry.nodeid, opened.fh, 0, "hello").error == 0, "WRITE");
  expect(guest.content(guest.host("c1/rootfs/new")) == "hello", "the host sees it");
  const auto again = [&](uint32_t flags) { return guest.call(FUSE_CREATE, rootfs, bytes_of(fuse_create_in{flags, 0666, 0, 0}, text("new"))); };
  expect(again(O_RDWR | O_EXCL).error == EEXIST, "O_EXCL");
  expect(again(O_RDWR).as<fuse_entry_out>().nodeid == entry.nodeid, "an existing file is opened");
  expect(guest.call(FUSE_CREATE, rootfs, bytes_of(fuse_create_in{O_RDWR, 0666, 0, 0}, text("secret"))).error != 0,
         "a symlink is not written through");
  expect(guest.content(guest.outside("secret")) == "secret", "what it points at is as it was");
}

void owner() {
  need_root();
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  fuse_in_header header{};
  header.opcode = FUSE_MKDIR;
  header.nodeid = rootfs;
  header.uid = 1234;
  header.gid = 4321;
  const std::string body = bytes_of(header, fuse_mkdir_in{0755, 0}, text("owned"));
  const uint64_t at = guest.front().allocate(4096);
  guest.put(at, body);
  guest.front()
      .queue(request_queue)
      .add(std::array{RingDescriptor{at, static_cast<uint32_t>(body.size()), 0, 0}, RingDescriptor{at + 1024, 1024, flag_write, 0}});
  guest.front().kick(request_queue);
  guest.front().wait_used(request_queue);
  struct stat made {};
  expect(::stat(guest.host("c1/rootfs/owned").c_str(), &made) == 0 && made.st_uid == 1234 && made.st_gid == 4321, "the caller owns it");
}

std::string entry_name(size_t i) { return "entry" + std::to_string(i); }

void make_entries(const Guest& guest, size_t count) {
  for (size_t i = 0; i < count; ++i) std::ofstream(guest.host("c1/rootfs/dir/" + entry_name(i)));
}

// Each test is a process of its own.
void allow_descriptors(rlim_t most) {
  const rlimit limit{most, most};
  os::checked(::setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

void read_folder() {
  Guest guest;
  make_entries(guest, 500);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  for (const uint32_t size : {4096u, 65536u, 300u}) {
    const auto listed = guest.list(dir, size);
    expect(listed.size() == 502, "every entry, and the two of dots");
    expect(listed.at(".").entry.nodeid == 0 && listed.at("..").entry.nodeid == 0, "dots are no nodes");
    for (const auto& [name, one] : listed) {
      if (name[0] == '.') continue;
      expect(one.entry.nodeid != 0 && S_ISREG(one.entry.attr.mode) && one.dirent.type == DT_REG, "attributes of " + name);
    }
  }
  expect(guest.lookup(dir, "entry7").as<fuse_entry_out>().nodeid == guest.list(dir, 65536).at("entry7").entry.nodeid, "one node");
}

// Of a folder that was read before its time of change, any reader but O_NOATIME's sets the time of access, on whatever filesystem with relatime.
void read_folder_for_lookups() {
  Guest guest;
  const std::string path = guest.host("c1/rootfs/dir");
  make_entries(guest, 500);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const auto time_of_access = [&] {
    struct stat facts {};
    expect(::stat(path.c_str(), &facts) == 0, "stat of the folder");
    return std::pair(facts.st_atim.tv_sec, facts.st_atim.tv_nsec);
  };
  const std::array<timespec, 2> long_ago{timespec{1, 1}, timespec{0, UTIME_OMIT}};
  expect(::utimensat(AT_FDCWD, path.c_str(), long_ago.data(), 0) == 0, "a time of access of long ago");
  const auto before = time_of_access();
  for (const uint32_t size : {16384u, 4096u, 300u}) {
    const auto listed = guest.list(dir, size, devices::fs::no_handle);
    expect(listed.size() == 502 && listed.at("entry7").entry.nodeid != 0, "every entry, though nobody has opened the folder");
  }
  expect(guest.list(dir, 4096, guest.open_folder(dir, O_NOATIME)).size() == 502, "a reader who leaves the time of access alone");
  expect(time_of_access() == before, "neither has set it");
  guest.list(dir, 4096);
  expect(time_of_access() != before, "and another reader does");
  const uint64_t file = guest.node("c1/rootfs/file");
  fuse_read_in in{};
  in.size = 4096;
  expect(guest.call(FUSE_READDIRPLUS, file, bytes_of(in)).error == ENOTDIR, "a file has no entries");
  expect(guest.call(FUSE_READDIR, dir, bytes_of(in)).error == EBADF, "other requests need a handle");
  expect(guest.call(FUSE_READDIRPLUS, 12345, bytes_of(in)).error == ESTALE, "a node never told");
}

void rename_and_unlink() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const uint64_t file = guest.node("c1/rootfs/file");
  expect(guest.call(FUSE_RENAME, rootfs, bytes_of(fuse_rename_in{dir}, text("file"), text("moved"))).error == 0, "RENAME");
  expect(guest.content(guest.host("c1/rootfs/dir/moved")) == "content", "it has moved");
  expect(guest.lookup(dir, "moved").as<fuse_entry_out>().nodeid == file, "and is the same node");
  std::ofstream(guest.host("c1/rootfs/other")) << "other";
  const Reply kept = guest.call(FUSE_RENAME2, rootfs, bytes_of(fuse_rename2_in{dir, 1, 0}, text("other"), text("moved")));
  expect(kept.error == EEXIST, "RENAME_NOREPLACE");
  const uint64_t handle = guest.open(file);
  expect(guest.call(FUSE_UNLINK, dir, text("moved")).error == 0, "UNLINK");
  expect(guest.read(file, handle, 0, 100).body == "content", "an open file outlives its name");
  expect(guest.absent(dir, "moved"), "the name is gone");
  expect(guest.call(FUSE_RMDIR, rootfs, text("dir")).error == 0, "RMDIR");
  expect(guest.call(FUSE_UNLINK, rootfs, text("link")).error == 0 && files::exists(guest.outside("secret")), "a symlink goes, not its target");
}

void symlinks() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const auto made = guest.call(FUSE_SYMLINK, rootfs, bytes_of(text("new"), text("../../../../etc"))).as<fuse_entry_out>();
  expect(S_ISLNK(made.attr.mode), "SYMLINK");
  expect(guest.call(FUSE_READLINK, made.nodeid, "").body == "../../../../etc", "READLINK");
  for (const char* name : {"link", "secret", "new"}) {
    const auto entry = guest.lookup(rootfs, name).as<fuse_entry_out>();
    expect(S_ISLNK(entry.attr.mode), "LOOKUP tells of the symlink itself");
    expect(guest.lookup(entry.nodeid, "secret").error == ENOTDIR, "there is nothing below it");
    expect(guest.call(FUSE_OPEN, entry.nodeid, bytes_of(fuse_open_in{O_RDWR, 0})).error == EINVAL, "it cannot be opened");
    expect(guest.call(FUSE_OPENDIR, entry.nodeid, bytes_of(fuse_open_in{0, 0})).error == EINVAL, "nor as a folder");
    fuse_setattr_in change{};
    change.valid = FATTR_MODE | FATTR_SIZE;
    expect(guest.call(FUSE_SETATTR, entry.nodeid, bytes_of(change)).error != 0, "nor its target be changed");
  }
  expect(guest.content(guest.outside("secret")) == "secret", "the target is as it was");
}

void special_files() {
  Guest guest;
  const uint64_t fifo = guest.node("c1/rootfs/fifo");
  expect(guest.call(FUSE_OPEN, fifo, bytes_of(fuse_open_in{O_RDONLY, 0})).error == EINVAL, "a FIFO is not opened, nor waited for");
  expect(guest.call(FUSE_CREATE, guest.node("c1/rootfs"), bytes_of(fuse_create_in{O_RDONLY, 0644, 0, 0}, text("fifo"))).error == EINVAL,
         "nor by CREATE");
}

void unknown_ids() {
  Guest guest;
  for (const uint64_t id : {uint64_t{0}, uint64_t{999}, UINT64_MAX}) {
    expect(guest.lookup(id, "x").error == ESTALE, "a node never told");
    expect(guest.read(root, id, 0, 10).error == EBADF, "a handle never told");
    expect(guest.call(FUSE_RELEASE, root, bytes_of(fuse_release_in{id, 0, 0, 0})).error == EBADF, "RELEASE of it");
    expect(guest.call(FUSE_FORGET, id, bytes_of(fuse_forget_in{UINT64_MAX}), 0).error == 0, "FORGET of it");
  }
  expect(guest.lookup(root, "c1").error == 0, "the root is not forgotten");
}

void forget() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  expect(guest.node("c1/rootfs/file") == file, "two lookups");
  const auto getattr = [&] { return guest.call(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).error; };
  guest.call(FUSE_FORGET, file, bytes_of(fuse_forget_in{1}), 0);
  expect(getattr() == 0, "one lookup is left");
  guest.call(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{1, 0}, fuse_forget_one{file, 1}), 0);
  expect(getattr() == ESTALE, "none is left");
  expect(guest.call(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{UINT32_MAX, 0})).error == EINVAL, "a count beyond reason");
}

// What FUSE_STATX tells is what the host's statx does, and what GETATTR told.
void birth() {
  Guest guest;
  const auto ask = [&](uint64_t node, uint32_t flags = 0, uint64_t handle = 0) {
    return guest.call(devices::fs::opcode_statx, node, bytes_of(devices::fs::StatxIn{flags, 0, handle, 0, STATX_BASIC_STATS | STATX_BTIME}));
  };
  const auto same = [&](const std::string& name, uint64_t node, const devices::fs::StatxOut& told) {
    struct statx host {};
    os::checked(::statx(AT_FDCWD, guest.host(name).c_str(), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &host), "statx");
    const auto attributes = guest.call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).as<fuse_attr_out>();
    expect(told.mask == (host.stx_mask & (STATX_BASIC_STATS | STATX_BTIME)), name + ": what is told");
    expect(told.btime.seconds == host.stx_btime.tv_sec && told.btime.nanoseconds == host.stx_btime.tv_nsec, name + ": time of birth");
    expect(told.mtime.seconds == host.stx_mtime.tv_sec && told.mtime.nanoseconds == host.stx_mtime.tv_nsec, name + ": time of modification");
    expect(told.ctime.seconds == host.stx_ctime.tv_sec && told.ctime.nanoseconds == host.stx_ctime.tv_nsec, name + ": time of change");
    expect(told.atime.seconds == host.stx_atime.tv_sec && told.atime.nanoseconds == host.stx_atime.tv_nsec, name + ": time of access");
    expect(told.mode == host.stx_mode && told.size == host.stx_size && told.nlink == host.stx_nlink && told.blocks == host.stx_blocks,
           name + ": the rest");
    expect(told.uid == host.stx_uid && told.gid == host.stx_gid && told.blksize == host.stx_blksize, name + ": its owner");
    expect(told.rdev_major == host.stx_rdev_major && told.rdev_minor == host.stx_rdev_minor, name + ": its device");
    expect(told.ino == attributes.attr.ino && told.attr_valid == attributes.attr_valid, name + ": its number, and how long that holds");
  };
  const bool devices = ::mknod(guest.host("c1/rootfs/device").c_str(), S_IFCHR | 0600, makedev(0xabc, 0x54321)) == 0;
  for (const char* name : {"c1", "c1/rootfs", "c1/rootfs/file", "c1/rootfs/device"}) {
    if (!devices && std::string_view(name).ends_with("device")) continue;  // not root's
    const uint64_t node = guest.node(name);
    same(name, node, ask(node).as<devices::fs::StatxOut>());
  }
  const uint64_t file = guest.node("c1/rootfs/file");
  const uint64_t handle = guest.open(file);
  same("c1/rootfs/file", file, ask(file, FUSE_GETATTR_FH, handle).as<devices::fs::StatxOut>());
  os::checked(::unlink(guest.host("c1/rootfs/file").c_str()), "unlink");
  expect(ask(file, FUSE_GETATTR_FH, handle).as<devices::fs::StatxOut>().nlink == 0, "of an open file without a name");
  expect(ask(file, FUSE_GETATTR_FH, 999).error == EBADF, "a handle never told");
  expect(ask(999).error == ESTALE, "a node never told");
  expect(guest.call(devices::fs::opcode_statx, root, "short").error == EINVAL, "a request cut short");
}

// O_APPEND is a request's: fcntl changes it, and what the guest's cache writes back goes to its place by whichever open file.
void append() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const uint64_t handle = guest.open(file, O_RDWR | O_APPEND);
  const auto content = [&] { return guest.content(guest.host("c1/rootfs/file")); };
  expect(guest.write(file, handle, 0, "++", O_RDWR | O_APPEND).as<fuse_write_out>().size == 2 && content() == "content++", "at the end");
  expect(guest.write(file, handle, 0, "C", O_RDWR).as<fuse_write_out>().size == 1 && content() == "Content++", "the flag has been cleared");
  guest.write(file, handle, 1, "O", O_RDWR | O_APPEND, FUSE_WRITE_CACHE);
  expect(content() == "COntent++", "the cache's own");
}

void direct() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const os::Descriptor host(::open(guest.host("c1/rootfs/file").c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  const int refused = host && ::pwrite(host.get(), "odd", 3, 1) == 3 ? 0 : errno;
  const Reply opened = guest.call(FUSE_OPEN, file, bytes_of(fuse_open_in{O_RDWR | O_DIRECT, 0}));
  if (!host) {
    expect(opened.error == refused, "a host's filesystem without");
    return;
  }
  const uint64_t handle = opened.as<fuse_open_out>().fh;
  expect(guest.write(file, handle, 1, "odd", O_RDWR | O_DIRECT).error == refused, "alignment is the host's to ask for");
  expect(guest.write(file, handle, 1, "odd").error == 0 && guest.content(guest.host("c1/rootfs/file")) == "coddent", "not of what the cache writes");
}

mode_t mode_of(const std::string& path) {
  struct stat facts {};
  os::checked(::stat(path.c_str(), &facts), "stat");
  return facts.st_mode & 07777;
}

void set_id_bits() {
  need_root();
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const std::string path = guest.host("c1/rootfs/file");
  const uint64_t handle = guest.open(file, O_RDWR);
  const auto set = [&](mode_t mode) { os::checked(::chmod(path.c_str(), mode), "chmod"); };
  set(06777);
  guest.write(file, handle, 0, "x");
  expect(mode_of(path) == 06777, "who may keep them, as the guest's kernel knows, keeps them");
  guest.write(file, handle, 0, "x", 0, FUSE_WRITE_KILL_SUIDGID);
  expect(mode_of(path) == 0777, "WRITE");
  guest.become(1000);
  set(02767);
  guest.write(file, handle, 0, "x", 0, FUSE_WRITE_KILL_SUIDGID);
  expect(mode_of(path) == 0767, "not of the group: without its x as well");
  set(06777);
  fuse_fallocate_in room{};
  room.fh = handle;
  room.length = 100;
  expect(guest.call(FUSE_FALLOCATE, file, bytes_of(room)).error == 0 && mode_of(path) == 0777, "FALLOCATE");
  set(06777);
  const fuse_create_in again{O_WRONLY | O_TRUNC, 0777, 0, FUSE_OPEN_KILL_SUIDGID};
  expect(guest.call(FUSE_CREATE, guest.node("c1/rootfs"), bytes_of(again, text("file"))).error == 0 && mode_of(path) == 0777,
         "CREATE of what is there");
}

void temporary_file() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const Reply made = guest.call(FUSE_TMPFILE, rootfs, bytes_of(fuse_create_in{O_RDWR, 0666, 022, 0}, text("#1")));
  need(made.error != EOPNOTSUPP, "a filesystem with O_TMPFILE");
  const auto entry = made.as<fuse_entry_out>();
  const auto opened = made.as<fuse_open_out>(sizeof(fuse_entry_out));
  expect(entry.attr.nlink == 0 && (entry.attr.mode & 07777) == 0644, "a file without a name");
  expect(guest.write(entry.nodeid, opened.fh, 0, "unnamed").error == 0, "WRITE");
  const auto named = guest.call(FUSE_LINK, rootfs, bytes_of(fuse_link_in{entry.nodeid}, text("named"))).as<fuse_entry_out>();
  expect(named.nodeid == entry.nodeid && guest.content(guest.host("c1/rootfs/named")) == "unnamed", "LINK gives it one");
}

void cache_policy() {
  Guest guest;
  std::ofstream(guest.host("c1/mounts/v/file")) << "volume";
  files::create_directories(guest.host("c1/own/w"));
  std::ofstream(guest.host("c1/own/w/file")) << "the pod's";
  const auto opened = [&](const std::string& path, uint32_t opcode = FUSE_OPEN) {
    return guest.call(opcode, guest.node(path), bytes_of(fuse_open_in{O_RDONLY, 0})).as<fuse_open_out>().open_flags;
  };
  expect(opened("c1/rootfs/file") == FOPEN_KEEP_CACHE, "the container's own file stays in the cache");
  expect(opened("c1/rootfs/dir", FUSE_OPENDIR) == FOPEN_CACHE_DIR, "its folders too");
  expect(opened("c1/mounts/v/file") == 0 && opened("c1/mounts/v", FUSE_OPENDIR) == 0, "a volume's are read anew");
  const uint64_t file = guest.node("c1/mounts/v/file");
  expect(guest.call(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).as<fuse_attr_out>().attr_valid == 0, "its attributes may not be kept");
  const auto none = guest.lookup(guest.node("c1/rootfs"), "absent").as<fuse_entry_out>();
  expect(none.nodeid == 0 && none.entry_valid > 0, "that a name is not there may be kept of the container's own folders");
  expect(guest.lookup(guest.node("c1/mounts/v"), "absent").error == ENOENT, "but not of a volume's");
  expect(guest.lookup(guest.node("c1"), "absent").error == ENOENT, "nor of the folders above, which the host makes as containers come");
  expect(opened("c1/own/w/file") == FOPEN_KEEP_CACHE && opened("c1/own/w", FUSE_OPENDIR) == FOPEN_CACHE_DIR,
         "a volume of the pod's own stays as well");
  const uint64_t own = guest.node("c1/own");
  expect(guest.lookup(own, "w").as<fuse_entry_out>().entry_valid > 0, "and may be kept");
  expect(guest.lookup(own, "absent").error == ENOENT && guest.lookup(guest.node("c1"), "own").as<fuse_entry_out>().entry_valid == 0,
         "but not which of them there are");
}

// A volume's names are asked for again and again, which is answered without opening anything: by what the name means now.
void known_names() {
  Guest guest;
  const std::string volume = guest.host("c1/mounts/v");
  const uint64_t parent = guest.node("c1/mounts/v");
  std::ofstream(volume + "/one") << "1";
  std::ofstream(volume + "/two") << "22";
  files::create_directories(volume + "/folder");
  const uint64_t one = guest.lookup(parent, "one").as<fuse_entry_out>().nodeid;
  const uint64_t two = guest.lookup(parent, "two").as<fuse_entry_out>().nodeid;
  const uint64_t folder = guest.lookup(parent, "folder").as<fuse_entry_out>().nodeid;
  const size_t before = open_descriptors();
  for (int i = 0; i < 100; ++i) {
    expect(guest.lookup(parent, "one").as<fuse_entry_out>().nodeid == one && guest.lookup(parent, "folder").as<fuse_entry_out>().nodeid == folder,
           "the same");
  }
  expect(open_descriptors() == before, "no descriptor more");
  files::rename(volume + "/two", volume + "/one");
  const auto swapped = guest.lookup(parent, "one").as<fuse_entry_out>();
  expect(swapped.nodeid == two && swapped.attr.size == 2, "another file of the name is another node");
  std::ofstream(volume + "/one", std::ios::app) << "2";
  expect(guest.lookup(parent, "one").as<fuse_entry_out>().attr.size == 3, "attributes are those of now");
  files::remove(volume + "/one");
  expect(guest.lookup(parent, "one").error == ENOENT, "a name that is gone");
  std::ofstream(volume + "/one") << "new";
  const uint64_t made = guest.lookup(parent, "one").as<fuse_entry_out>().nodeid;
  expect(made != one && made != two, "a new file of the name is a new node");
  const auto forget = [&](uint64_t lookups) { guest.call(FUSE_FORGET, folder, bytes_of(fuse_forget_in{lookups}), 0); };
  forget(100);
  expect(guest.lookup(folder, "x").error == ENOENT, "each of those lookups was counted");
  forget(1);
  expect(guest.lookup(folder, "x").error == ESTALE, "once");
}

void folder_numbers() {
  need_own_mounts();
  Guest guest;
  const Mount mount(guest.host("c1/mounts/v"));
  std::ofstream(guest.host("c1/mounts/v/file")) << "x";
  const uint64_t volume = guest.node("c1/mounts/v");
  const uint64_t number = guest.lookup(volume, "file").as<fuse_entry_out>().attr.ino;
  const uint64_t handle = guest.open_folder(volume);
  fuse_read_in in{};
  in.fh = handle;
  in.size = 4096;
  const Reply listed = guest.call(FUSE_READDIR, volume, bytes_of(in));
  for (size_t at = 0; at < listed.body.size();) {
    const auto entry = listed.as<fuse_dirent>(at);
    if (listed.body.substr(at + FUSE_NAME_OFFSET, entry.namelen) == "file") {
      expect(entry.ino == number, "READDIR's number is LOOKUP's");
      return;
    }
    at += FUSE_DIRENT_SIZE(&entry);
  }
  expect(false, "the file is listed");
}

// What two containers have of one volume: files are one node, so that the guest's kernel has one inode for locks, mappings and sockets.
void volume_of_two() {
  need_own_mounts();
  Guest guest;
  const std::string volume = guest.host("c1/mounts/v");
  std::ofstream(volume + "/file") << "one";
  files::create_directories(volume + "/folder");
  const Mount second(volume, guest.host("c2/mounts/v"), MS_RDONLY);
  const Mount third(volume, guest.host("c3/mounts/v"));
  const uint64_t file = guest.node("c2/mounts/v/file");
  const auto open_to_write = [&] { return guest.call(FUSE_OPEN, file, bytes_of(fuse_open_in{O_RDWR, 0})).error; };
  expect(open_to_write() == EROFS, "known by the read-only mount alone");
  expect(guest.node("c1/mounts/v/file") == file && guest.node("c3/mounts/v/file") == file, "one node");
  expect(open_to_write() == 0, "another container may write it");
  expect(guest.node("c1/mounts/v/folder") != guest.node("c3/mounts/v/folder"), "a folder is one a mount");
  for (const std::string place : {"c1/mounts/v", "c3/mounts/v", "c1/mounts/v/folder", "c3/mounts/v/folder"}) {
    const Reply linked = guest.call(FUSE_LINK, guest.node(place), bytes_of(fuse_link_in{file}, text("by-" + place.substr(0, 2))));
    expect(linked.error == 0 && linked.as<fuse_entry_out>().nodeid == file, "LINK within " + place);
  }
  expect(guest.call(FUSE_LINK, guest.node("c2/mounts/v"), bytes_of(fuse_link_in{file}, text("new"))).error == EROFS, "LINK in the read-only one");
  guest.call(FUSE_FORGET, file, bytes_of(fuse_forget_in{UINT64_MAX}), 0);
  expect(guest.call(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).error == ESTALE, "forgotten by all its ways");
}

void sync_mounts() {
  need_own_mounts();
  Guest guest;
  const Mount mount(guest.host("c1/mounts/a name"));
  expect(guest.call(FUSE_SYNCFS, root, bytes_of(fuse_syncfs_in{})).error == 0, "SYNCFS of all");
  expect(guest.call(FUSE_SYNCFS, guest.node("c1/rootfs/file"), bytes_of(fuse_syncfs_in{})).error == 0, "of a file's filesystem");
  expect(guest.call(FUSE_SYNCFS, guest.node("c1/rootfs/fifo"), bytes_of(fuse_syncfs_in{})).error == EINVAL, "a FIFO is not opened for it");
}

void symlink_attributes() {
  Guest guest;
  const uint64_t link = guest.node("c1/rootfs/secret");
  fuse_setxattr_in in{};
  in.size = 1;
  expect(guest.call(FUSE_SETXATTR, link, bytes_of(in, text("user.x"), std::string("1"))).error == EPERM, "SETXATTR is of the symlink itself");
  expect(::getxattr(guest.outside("secret").c_str(), "user.x", nullptr, 0) < 0, "the target has none");
  need(::setxattr(guest.outside("secret").c_str(), "user.y", "1", 1, 0) == 0, "a filesystem with attributes of users, for the rest of it");
  expect(guest.call(FUSE_GETXATTR, link, bytes_of(fuse_getxattr_in{100, 0}, text("user.y"))).error == ENODATA, "GETXATTR");
  expect(guest.call(FUSE_LISTXATTR, link, bytes_of(fuse_getxattr_in{100, 0})).body.find("user.y") == std::string::npos, "LISTXATTR");
  expect(guest.call(FUSE_REMOVEXATTR, link, text("user.y")).error != 0, "REMOVEXATTR");
  expect(::getxattr(guest.outside("secret").c_str(), "user.y", nullptr, 0) == 1, "the target's is there still");
}

// A guest's kernel asks for the ACL of what its caller does not own, and takes any other error than this for its own.
void filesystem_without_acls() {
  need_own_mounts();
  Guest guest;
  const Mount mount(guest.host("c1/mounts/plain"), Mount::Type{"ramfs"});
  const uint64_t folder = guest.node("c1/mounts/plain");
  const auto get = [&](const char* name) { return guest.call(FUSE_GETXATTR, folder, bytes_of(fuse_getxattr_in{100, 0}, text(name))).error; };
  expect(get("system.posix_acl_access") == ENODATA && get("system.posix_acl_default") == ENODATA, "no ACL");
  expect(get("user.x") == EOPNOTSUPP, "no attributes of users");
}

void malformed() {
  Guest guest;
  for (uint32_t opcode = 0; opcode < 64; ++opcode) {
    if (opcode == FUSE_DESTROY) continue;  // has no body, and ends the session
    for (const size_t length : {0u, 1u, 7u, 15u}) {
      guest.call(opcode, root, std::string(length, '\xff'));
      guest.call(opcode, root, std::string(length, '\xff'), 10);
      guest.call(opcode, root, std::string(length, '\xff'), 0);
    }
  }
  expect(guest.call(4000, root, "").error == ENOSYS, "an unknown operation");
  expect(guest.lookup(root, "c1").error == 0, "the device lives");
}

void short_header() {
  Guest guest;
  const uint64_t at = guest.front().allocate(4096);
  guest.front().queue(request_queue).add(std::array{RingDescriptor{at, 10, 0, 0}, RingDescriptor{at + 64, 100, flag_write, 0}});
  guest.front().kick(request_queue);
  expect(guest.front().wait_used(request_queue).length == 0, "no header, no reply");
  expect(guest.lookup(root, "c1").error == 0, "the device lives");
}

// Many requests at once, answered in any order.
void concurrent() {
  Guest guest;
  FrontEnd& front = guest.front();
  constexpr size_t slot = 512;
  constexpr size_t slots = 20;
  const uint64_t at = front.allocate(slot * slots * 2);
  for (size_t i = 0; i < slots; ++i) {
    fuse_in_header header{};
    header.opcode = FUSE_LOOKUP;
    header.nodeid = root;
    const std::string body = bytes_of(header, text("c1"));
    guest.put(at + 2 * i * slot, body);
    front.queue(request_queue)
        .add(std::array{RingDescriptor{at + 2 * i * slot, static_cast<uint32_t>(body.size()), 0, 0},
                        RingDescriptor{at + (2 * i + 1) * slot, slot, flag_write, 0}});
  }
  front.kick(request_queue);
  for (size_t i = 0; i < slots; ++i) {
    expect(front.wait_used(request_queue).length == sizeof(fuse_out_header) + sizeof(fuse_entry_out), "a reply");
  }
}

// A guest that looks up everything gets ENFILE in time; what the process needs for the rest of the pod is left.
void descriptors_run_out() {
  allow_descriptors(256);
  Guest guest;
  make_entries(guest, 300);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  expect(guest.list(dir, 65536).size() == 302, "a folder is listed whole, if without nodes");
  int refused = 0;
  for (size_t i = 0; i < 300; ++i) {
    const int error = guest.lookup(dir, entry_name(i)).error;
    expect(error == 0 || error == ENFILE, "ENFILE");
    refused += error != 0 ? 1 : 0;
  }
  expect(refused > 100, "most are refused");
  std::vector<os::Descriptor> rest;
  for (int i = 0; i < 32; ++i) rest.emplace_back(os::checked(::dup(2), "dup"));
  guest.call(FUSE_DESTROY, 0, "");
  expect(guest.init().error == 0 && guest.lookup(guest.node("c1/rootfs/dir"), "entry299").error == 0, "a new session begins with none");
}

// The guest asks again after an ENFILE: what it wants to make must not be there yet.
void no_room_for_what_is_made() {
  allow_descriptors(256);
  Guest guest;
  make_entries(guest, 300);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const uint64_t known = guest.lookup(dir, entry_name(0)).as<fuse_entry_out>().nodeid;
  for (size_t i = 1; i < 300; ++i) guest.lookup(dir, entry_name(i));
  const auto makes = [&](const std::string& name) {
    return std::vector<int>{guest.call(FUSE_MKDIR, dir, bytes_of(fuse_mkdir_in{0755, 0}, text("dir" + name))).error,
                            guest.call(FUSE_MKNOD, dir, bytes_of(fuse_mknod_in{S_IFREG | 0644, 0, 0, 0}, text("node" + name))).error,
                            guest.call(FUSE_SYMLINK, dir, bytes_of(text("link" + name), text("target"))).error,
                            guest.call(FUSE_CREATE, dir, bytes_of(fuse_create_in{O_RDWR | O_EXCL, 0644, 0, 0}, text("file" + name))).error,
                            guest.call(FUSE_TMPFILE, dir, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text("/"))).error};
  };
  expect(std::ranges::all_of(makes("1"), [](int error) { return error == ENFILE; }), "no room");
  for (const char* const name : {"dir1", "node1", "link1", "file1"})
    expect(!files::exists(files::symlink_status(guest.host(std::string("c1/rootfs/dir/") + name))), name);
  expect(guest.call(FUSE_LINK, dir, bytes_of(fuse_link_in{known}, text("linked"))).error == 0, "a name more of a node takes none");
  for (uint64_t node = known + 1; node < known + 32; ++node) guest.call(FUSE_FORGET, node, bytes_of(fuse_forget_in{1}), 0);
  expect(std::ranges::all_of(makes("2"), [](int error) { return error == 0; }), "room again");
}

// As many nodes as a guest may know, with few descriptors.
void more_nodes_than_descriptors() {
  need_root();  // handles are for CAP_DAC_READ_SEARCH
  constexpr size_t budget = 100;
  const char* const all = std::getenv("TSKATA_TEST_FULL");
  const size_t count = all != nullptr && std::string(all) == "1" ? 990'000 : 10'000;
  allow_descriptors(1024);
  Guest guest(true, start_keeper(), budget);
  make_entries(guest, count);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const size_t before = open_descriptors();
  std::vector<std::pair<uint64_t, uint64_t>> nodes(count);  // and numbers
  for (const auto& [entry, known] : guest.list(dir, reply_bytes / 2)) {
    if (entry[0] != '.') nodes[std::stoul(entry.substr(5))] = {known.entry.nodeid, known.entry.attr.ino};
  }
  expect(std::ranges::all_of(nodes, [](const auto& node) { return node.first != 0; }), "every entry has its node");
  expect(open_descriptors() < before + 2 * budget, "descriptors within the budget");
  const auto getattr = [&](uint64_t node) { return guest.call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})); };
  const size_t gone = count / 2;  // among those whose descriptors were closed long ago
  const uint64_t open_node = nodes[0].first;
  const uint64_t handle = guest.open(open_node, O_RDWR);
  expect(guest.write(open_node, handle, 0, "kept").error == 0 && guest.call(FUSE_UNLINK, dir, text(entry_name(0))).error == 0, "unlinked, but open");
  expect(guest.call(FUSE_UNLINK, dir, text(entry_name(gone))).error == 0, "unlinked, and known alone");
  const size_t step = std::max<size_t>(1, count / 2000);
  for (size_t i = 2; i < count; i += step) {
    if (i == gone) continue;
    expect(getattr(nodes[i].first).as<fuse_attr_out>().attr.ino == nodes[i].second, "every node is its file still");
  }
  expect(open_descriptors() < before + 2 * budget, "descriptors within the budget");
  expect(guest.read(open_node, handle, 0, 10).body == "kept" && getattr(open_node).as<fuse_attr_out>().attr.nlink == 0, "the open file");
  expect(getattr(nodes[gone].first).error == ESTALE, "a file that is gone for good");
  expect(guest.lookup(dir, entry_name(2)).as<fuse_entry_out>().nodeid == nodes[2].first, "one node still");
  expect(guest.call(FUSE_LINK, dir, bytes_of(fuse_link_in{nodes[3].first}, text("linked"))).as<fuse_entry_out>().nodeid == nodes[3].first, "LINK");
  for (size_t at = 0; at < count; at += 1000) {
    const size_t part = std::min<size_t>(1000, count - at);
    std::string body = bytes_of(fuse_batch_forget_in{static_cast<uint32_t>(part), 0});
    for (size_t i = at; i < at + part; ++i) body += bytes_of(fuse_forget_one{nodes[i].first, 10});
    guest.call(FUSE_BATCH_FORGET, 0, body, 0);
  }
  expect(getattr(nodes[5].first).error == ESTALE && open_descriptors() <= before + 1, "FORGET");
  expect(guest.node("c1/rootfs/dir/" + entry_name(5)) != nodes[5].first, "found anew");
  guest.call(FUSE_DESTROY, 0, "");
  expect(guest.init().error == 0 && guest.lookup(guest.node("c1/rootfs/dir"), entry_name(7)).error == 0, "a new session");
}

// A process that may have few descriptors has no more of them beyond the budget: others are closed even when all have been used a moment ago.
void descriptors_all_in_use() {
  need_root();  // handles are for CAP_DAC_READ_SEARCH
  constexpr size_t count = 1500;
  allow_descriptors(1024);
  Guest guest(true, start_keeper());
  make_entries(guest, count);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  for (size_t i = 0; i < count; ++i) {
    const Reply found = guest.lookup(dir, entry_name(i));
    expect(found.error == 0, "LOOKUP " + std::to_string(i) + " of a name");
    const uint64_t node = found.as<fuse_entry_out>().nodeid;
    expect(guest.call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).error == 0, "which uses its descriptor");
  }
  expect(guest.list(dir, 65536).at("entry0").entry.nodeid != 0, "READDIRPLUS gives nodes as well");
}

// A volume whose folder is used by each request for it, so that none of its mount's folders is closed before a file is.
void descriptors_of_a_flat_volume() {
  need_own_mounts();
  constexpr size_t count = 1500;
  allow_descriptors(1024);
  Guest guest(true, start_keeper());
  const std::string volume = guest.host("c1/mounts/v");
  const Mount mount(volume);
  for (size_t i = 0; i < count; ++i) std::ofstream(volume + "/" + entry_name(i));
  const uint64_t folder = guest.node("c1/mounts/v");
  for (size_t i = 0; i < count; ++i) expect(guest.lookup(folder, entry_name(i)).error == 0, "LOOKUP " + std::to_string(i) + " of a name");
}

// Entries that the guest's kernel reads for the sake of lookups leave room for what is looked up.
void descriptors_of_names_not_asked_for() {
  allow_descriptors(1024);
  Guest guest;
  make_entries(guest, 1000);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const size_t told = guest.list(dir, 65536, devices::fs::no_handle).size();
  expect(told > 200 && told < 300, std::to_string(told) + " entries, half of what there may be");
  int found = 0;
  for (size_t i = 0; i < 1000; ++i) found += guest.lookup(dir, entry_name(i)).error == 0 ? 1 : 0;
  expect(found >= 440, std::to_string(found) + " found by name, as without");  // some room is for what is made
}

// A filesystem of its own, mounted: with a journal it uses inode numbers again at once, and it gives data a place when that is written back.
class Ext4 {
 public:
  explicit Ext4(std::string place) : place_(std::move(place)) {
    const std::string image = folder_ / "image";
    std::ofstream(image).close();
    files::resize_file(image, 16 << 20);
    need(std::system(("mkfs.ext4 -q -F " + image).c_str()) == 0, "mkfs.ext4");
    need(std::system(("mount -t ext4 -o loop " + image + ' ' + place_).c_str()) == 0, "a loop device");
  }
  ~Ext4() { (void)::umount2(place_.c_str(), MNT_DETACH); }
  Ext4(const Ext4&) = delete;
  Ext4& operator=(const Ext4&) = delete;

 private:
  TemporaryFolder folder_;
  std::string place_;
};

// A file may go and another get its inode number while nothing of ours holds it.
void numbers_used_again() {
  need_own_mounts();
  constexpr int others = 100;
  Guest guest(true, start_keeper(), 20);
  const std::string disk = guest.host("c1/mounts/v");
  const Ext4 mount(disk);
  std::ofstream(disk + "/first") << "first";
  files::create_directory(disk + "/folder");
  const uint64_t volume = guest.node("c1/mounts/v");
  guest.lookup(volume, "folder");  // the first to be closed: the keeper wants a folder of each mount
  const auto first = guest.lookup(volume, "first").as<fuse_entry_out>();
  for (int i = 0; i < others; ++i) {
    std::ofstream(disk + "/other" + std::to_string(i));
    guest.lookup(volume, "other" + std::to_string(i));
  }
  struct stat facts {};
  os::checked(::stat((disk + "/first").c_str(), &facts), "stat");
  const ino_t number = facts.st_ino;
  files::remove(disk + "/first");
  for (int i = 0; i < others; ++i) {
    const std::string name = "second" + std::to_string(i);
    std::ofstream(disk + "/" + name) << "another";
    os::checked(::stat((disk + "/" + name).c_str(), &facts), "stat");
    if (facts.st_ino != number) continue;
    const auto second = guest.lookup(volume, name).as<fuse_entry_out>();
    expect(second.attr.ino == first.attr.ino && second.nodeid != first.nodeid && second.attr.size == 7, "another node");
    expect(guest.call(FUSE_GETATTR, first.nodeid, bytes_of(fuse_getattr_in{})).error == ESTALE, "the first is gone");
    guest.call(FUSE_FORGET, first.nodeid, bytes_of(fuse_forget_in{1}), 0);
    expect(guest.lookup(volume, name).as<fuse_entry_out>().nodeid == second.nodeid, "the second is known by its number");
    return;
  }
  expect(false, "the number is used again");
}

// What the keeper opens is what it was given: no number, no mount, no bytes of anybody else's making.
void keeper_alone() {
  need_root();
  keeper::Client client(start_keeper());
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  const os::Descriptor top(::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const os::Descriptor file(::open((folder / "file").c_str(), O_PATH | O_CLOEXEC));
  const os::Descriptor elsewhere(::open("/proc/self/status", O_PATH | O_CLOEXEC));
  const auto refused = [&](uint32_t number) {
    try {
      client.open(number);
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    return 0;
  };
  expect(client.keep(1, file.get(), -1) == 0, "a mount is told of by a folder");
  const uint32_t known = client.keep(1, top.get(), top.get());
  const uint32_t number = client.keep(1, file.get(), -1);
  expect(known != 0 && number != 0 && known != number, "numbers");
  expect(client.same(number, file.get()) && !client.same(number, top.get()), "which file it is");
  expect(client.keep(1, elsewhere.get(), -1) == 0, "a file of another mount");
  expect(refused(number + 1) == ENOENT, "a number that was never told");
  struct stat opened {
  }, facts{};
  os::checked(::fstat(client.open(number).get(), &opened), "fstat");
  os::checked(::fstat(file.get(), &facts), "fstat");
  expect(opened.st_ino == facts.st_ino && opened.st_dev == facts.st_dev, "the file");
  const os::Descriptor other(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  client.leave(1);
  (void)client.keep(1, other.get(), other.get());
  struct stat again {};
  os::checked(::fstat(client.open(number).get(), &again), "fstat");
  expect(again.st_ino == facts.st_ino && again.st_dev == facts.st_dev, "a handle stays with the mount it was made by");
  client.drop(number, 1);
  expect(refused(number) == ENOENT, "a number that was dropped");
}

// A queue that a driver keeps full stops all the same, and what was taken has been answered.
void stop_under_load() {
  Guest guest;
  FrontEnd& front = guest.front();
  fuse_in_header header{};
  header.opcode = FUSE_STATFS;
  header.nodeid = root;
  const uint64_t at = front.allocate(4096);
  guest.put(at, bytes_of(header));
  DriverQueue& queue = front.queue(request_queue);
  for (uint16_t i = 0; i < FrontEnd::queue_size; i = static_cast<uint16_t>(i + 2)) {
    queue.set_descriptor(i, {at, sizeof header, flag_next, static_cast<uint16_t>(i + 1)});
    queue.set_descriptor(static_cast<uint16_t>(i + 1), {at + 1024, 1024, flag_write, 0});
  }
  std::jthread driver([&](const std::stop_token& done) {
    uint16_t next = queue.used_index();
    while (!done.stop_requested()) {
      while (static_cast<uint16_t>(next - queue.used_index()) < FrontEnd::queue_size / 2) {
        queue.publish(static_cast<uint16_t>(next % (FrontEnd::queue_size / 2) * 2));
        ++next;
      }
      front.kick(request_queue);
    }
  });
  eventually([&] { return queue.used_index() > 1000; }, "the queue is busy");
  const uint32_t taken = front.stop_queue(request_queue);
  const uint16_t answered = queue.used_index();
  expect(static_cast<uint16_t>(taken) == answered, "what was taken has been answered");
}

// The host's part is another process's: what this one does is the guest's doing.
void as_host(const std::function<void()>& change) {
  const int child = os::checked(::fork(), "fork");
  if (child == 0) {
    change();
    ::_exit(0);
  }
  os::checked(::waitpid(child, nullptr, 0), "waitpid");
}

void host_changes() {
  using devices::fs::Change;
  using devices::fs::ChangeKind;
  Guest guest;
  const std::string volume = guest.host("c1/mounts/v");
  const uint64_t folder = guest.node("c1/mounts/v");
  // The guest's own is no news.
  expect(guest.call(FUSE_MKDIR, folder, bytes_of(fuse_mkdir_in{0755, 0}, text("own"))).error == 0, "MKDIR");
  as_host([&] {
    ::mkdir((volume + "/made").c_str(), 0755);
    ::rename((volume + "/made").c_str(), (volume + "/moved").c_str());
    ::rmdir((volume + "/moved").c_str());
  });
  std::vector<Change> heard;
  while (heard.size() < 3) {
    for (Change& change : guest.changes()) heard.push_back(std::move(change));
  }
  const std::vector<Change> expected{{ChangeKind::create, true, folder, "made", 0, {}},
                                     {ChangeKind::rename, true, folder, "made", folder, "moved"},
                                     {ChangeKind::remove, true, folder, "moved", 0, {}}};
  expect(heard == expected, "the host's changes in order, the guest's own not among them");

  // Only the agent replays, and only what has been announced; nothing of it is done on the host.
  const std::string mkdir = bytes_of(fuse_mkdir_in{0755, 0}, text("made"));
  as_host([&] { ::mkdir((volume + "/made").c_str(), 0755); });
  expect(guest.changes().size() == 1, "one more change");
  expect(guest.call(FUSE_MKDIR, folder, mkdir).error == EEXIST, "a process that is not the agent is told what is");
  guest.speak_as(1);
  expect(guest.lookup(folder, "made").error == ENOENT, "what is to be made once more is not shown to the agent");
  const auto made = guest.call(FUSE_MKDIR, folder, mkdir).as<fuse_entry_out>();
  expect(made.nodeid == guest.lookup(folder, "made").as<fuse_entry_out>().nodeid, "the replay is answered with the folder that is there");
  expect(guest.call(FUSE_MKDIR, folder, mkdir).error == EEXIST, "a change is replayed once");
  fuse_setattr_in times{};
  times.valid = FATTR_MTIME;
  times.mtime = devices::fs::replayed_time;
  const auto replayed = guest.call(FUSE_SETATTR, made.nodeid, bytes_of(times)).as<fuse_attr_out>();
  const auto asked = guest.call(FUSE_GETATTR, made.nodeid, bytes_of(fuse_getattr_in{})).as<fuse_attr_out>();
  expect(replayed.attr.mtime == asked.attr.mtime && replayed.attr.mtimensec != asked.attr.mtimensec, "data of before is not taken for that of after");
  expect((replayed.attr.flags & devices::fs::attribute_unchanged) != 0 && asked.attr.flags == 0, "a replay changes no attributes");
  expect(guest.call(FUSE_RMDIR, folder, text("own")).error == 0 && !files::exists(volume + "/own"), "what was not announced is done");
  expect(guest.call(FUSE_LOOKUP, root, text(".node-" + std::to_string(folder))).as<fuse_entry_out>().nodeid == folder,
         "a watched folder by its node");
  for (const std::string name : {".node-1", ".node-99999", ".node-x", ".node-"}) expect(guest.lookup(root, name).error != 0, name + " is nothing");

  // Gone again before it is replayed.
  guest.speak_as(7);
  as_host([&] {
    ::mkdir((volume + "/brief").c_str(), 0755);
    ::rmdir((volume + "/brief").c_str());
  });
  size_t brief = guest.changes().size();
  guest.speak_as(1);
  if (brief == 2) {
    const auto ghost = guest.call(FUSE_MKDIR, folder, bytes_of(fuse_mkdir_in{0755, 0}, text("brief"))).as<fuse_entry_out>();
    expect(S_ISDIR(ghost.attr.mode) && !files::exists(volume + "/brief"), "a ghost stands for it");
    expect(guest.lookup(folder, "brief").error == 0, "it is there for the agent, that is to remove it");
    expect(guest.call(FUSE_RMDIR, folder, text("brief")).error == 0, "RMDIR of a ghost");
    expect(guest.call(FUSE_OPENDIR, ghost.nodeid, bytes_of(fuse_open_in{O_DIRECTORY, 0})).error == ESTALE, "a ghost is no node");
  }
  expect(guest.lookup(folder, "brief").error == ENOENT, "and then it is gone");
}

// Of a node that nobody knows.
std::string forget_request() {
  fuse_in_header header{};
  header.opcode = FUSE_FORGET;
  header.nodeid = 77;
  return bytes_of(header, fuse_forget_in{1});
}

void serves(Guest& guest, size_t queue) {
  if (queue == request_queue) return expect(guest.lookup(root, "c1").error == 0, "LOOKUP");
  const std::string request = forget_request();
  expect(exchange(guest.front(), priority_queue, std::as_bytes(std::span(request)), 0).written == 0, "FORGET");
}

void break_queue(const Breakage& how, size_t queue) {
  Guest guest;
  how.make(guest.front(), queue);
  guest.front().kick(queue);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  expect(!guest.front().queue(queue).take(), "nothing comes back");
  serves(guest, queue == request_queue ? priority_queue : request_queue);
  guest.front().stop_queue(queue);
  guest.front().start_queue(queue);
  serves(guest, queue);
}

void changing_forgets() {
  Guest guest;
  const std::string request = forget_request();
  const auto bytes = std::as_bytes(std::span(request));
  flip_tables(guest.front(), priority_queue, {{bytes.begin(), bytes.end()}, 0});
  (void)guest.init();  // one of the flips may have ended the session
  serves(guest, request_queue);
  serves(guest, priority_queue);
}

// A request that there is nothing to read of: it comes back, and nothing is written.
void no_readable_part() {
  Guest guest;
  FrontEnd& front = guest.front();
  const uint64_t at = front.allocate(4096);
  const auto room = front.at(at, 4096);
  std::ranges::fill(room, std::byte{0xee});
  for (const auto& pieces : std::vector<std::vector<RingDescriptor>>{
           {{at, 4096, flag_write, 0}},
           {{at, 0, flag_write, 0}},
           {{at, 0, 0, 0}, {at, 4096, flag_write, 0}},
           {{at, 0, 0, 0}},
       }) {
    for (const size_t queue : {request_queue, priority_queue}) {
      front.queue(queue).add(pieces);
      front.kick(queue);
      expect(front.wait_used(queue).length == 0, "no reply");
    }
  }
  expect(std::ranges::all_of(room, [](std::byte one) { return one == std::byte{0xee}; }), "nothing is written");
  serves(guest, request_queue);
  serves(guest, priority_queue);
}

// Pieces without bytes among those of a request and of its reply are nothing.
void empty_pieces() {
  Guest guest;
  FrontEnd& front = guest.front();
  fuse_in_header header{};
  header.opcode = FUSE_LOOKUP;
  header.nodeid = root;
  const uint64_t at = front.allocate(4096);
  guest.put(at, bytes_of(header, text("c1")));
  front.queue(request_queue)
      .add(std::array<RingDescriptor, 7>{{{at, 0, 0, 0},
                                          {at, sizeof header, 0, 0},
                                          {at, 0, 0, 0},
                                          {at + sizeof header, 3, 0, 0},
                                          {at, 0, flag_write, 0},
                                          {at + 1024, 1024, flag_write, 0},
                                          {at, 0, flag_write, 0}}});
  front.kick(request_queue);
  expect(front.wait_used(request_queue).length == sizeof(fuse_out_header) + sizeof(fuse_entry_out), "LOOKUP");
}

int synchronise(Guest& guest, uint32_t opcode, uint64_t node, uint64_t handle, uint32_t flags = 0) {
  return guest.call(opcode, node, bytes_of(fuse_fsync_in{handle, flags, 0})).error;
}

// A guest's kernel takes ENOSYS for success from then on.
void sync_handles() {
  Guest guest;
  const uint64_t file = guest.node("c1/rootfs/file");
  const uint64_t handle = guest.open(file, O_RDWR);
  const uint64_t dir = guest.node("c1/rootfs/dir");
  const uint64_t folder = guest.open_folder(dir);
  for (const uint32_t flags : {0u, uint32_t{FUSE_FSYNC_FDATASYNC}}) {
    expect(synchronise(guest, FUSE_FSYNC, file, handle, flags) == 0, "FSYNC");
    expect(synchronise(guest, FUSE_FSYNCDIR, dir, folder, flags) == 0, "FSYNCDIR");
    expect(synchronise(guest, FUSE_FSYNC, file, 9999, flags) == EBADF, "FSYNC of a handle never told");
    expect(synchronise(guest, FUSE_FSYNCDIR, dir, 9999, flags) == EBADF, "FSYNCDIR of one");
  }
  guest.call(FUSE_RELEASE, file, bytes_of(fuse_release_in{handle, 0, 0, 0}));
  guest.call(FUSE_RELEASEDIR, dir, bytes_of(fuse_release_in{folder, 0, 0, 0}));
  expect(synchronise(guest, FUSE_FSYNC, file, handle) == EBADF && synchronise(guest, FUSE_FSYNCDIR, dir, folder) == EBADF, "released handles");
  expect(guest.call(FUSE_SYNCFS, 9999, bytes_of(fuse_syncfs_in{})).error == ESTALE, "SYNCFS of a node never told");
}

// Whether some of a file's data has no place on the disk yet.
bool is_unwritten(const std::string& path) {
  const os::Descriptor file(os::checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open"));
  alignas(fiemap) std::array<char, sizeof(fiemap) + 8 * sizeof(fiemap_extent)> room{};
  auto& map = *reinterpret_cast<fiemap*>(room.data());
  map.fm_length = FIEMAP_MAX_OFFSET;
  map.fm_extent_count = 8;
  if (::ioctl(file.get(), FS_IOC_FIEMAP, &map) != 0) return false;
  return std::any_of(map.fm_extents, map.fm_extents + map.fm_mapped_extents,
                     [](const fiemap_extent& one) { return (one.fe_flags & FIEMAP_EXTENT_DELALLOC) != 0; });
}

// What is answered has been done.
void synced_to_disk() {
  need_own_mounts();
  Guest guest;
  const std::string disk = guest.host("c1/mounts/v");
  const Ext4 mount(disk);
  const uint64_t volume = guest.node("c1/mounts/v");
  const auto reaches_disk = [&](const std::string& name, const std::function<int(uint64_t node, uint64_t handle)>& sync) {
    const Reply made = guest.call(FUSE_CREATE, volume, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text(name)));
    const uint64_t node = made.as<fuse_entry_out>().nodeid;
    const uint64_t handle = made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
    expect(guest.write(node, handle, 0, std::string(100'000, 'x')).error == 0, "WRITE");
    expect(is_unwritten(disk + "/" + name), "it is not on the disk by itself");
    expect(sync(node, handle) == 0 && !is_unwritten(disk + "/" + name), name);
  };
  const auto sync_all = [&](uint64_t node) { return guest.call(FUSE_SYNCFS, node, bytes_of(fuse_syncfs_in{})).error; };
  reaches_disk("FSYNC", [&](uint64_t node, uint64_t handle) { return synchronise(guest, FUSE_FSYNC, node, handle); });
  reaches_disk("fdatasync", [&](uint64_t node, uint64_t handle) { return synchronise(guest, FUSE_FSYNC, node, handle, FUSE_FSYNC_FDATASYNC); });
  reaches_disk("SYNCFS of the file's filesystem", [&](uint64_t node, uint64_t) { return sync_all(node); });
  reaches_disk("SYNCFS of all that is mounted", [&](uint64_t, uint64_t) { return sync_all(root); });
}

}  // namespace

std::vector<Case> fs_cases() {
  std::vector<Case> out{
      {"fs: INIT comes first", before_init},
      {"fs: LOOKUP", lookup},
      {"fs: names are one component", names},
      {"fs: OPEN and READ", read_file},
      {"fs: WRITE", write_file},
      {"fs: CREATE", create},
      {"fs: what is made belongs to the caller", owner},
      {"fs: READDIRPLUS", read_folder},
      {"fs: READDIRPLUS without a handle", read_folder_for_lookups},
      {"fs: RENAME and UNLINK", rename_and_unlink},
      {"fs: symlinks lead nowhere", symlinks},
      {"fs: special files are not opened", special_files},
      {"fs: ids never told", unknown_ids},
      {"fs: FORGET", forget},
      {"fs: STATX", birth},
      {"fs: O_APPEND comes with each WRITE", append},
      {"fs: O_DIRECT comes with each WRITE", direct},
      {"fs: set-id bits go", set_id_bits},
      {"fs: TMPFILE and LINK", temporary_file},
      {"fs: what may be cached", cache_policy},
      {"fs: names that are known", known_names},
      {"fs: numbers of READDIR", folder_numbers},
      {"fs: a volume of two containers", volume_of_two},
      {"fs: the host's changes", host_changes},
      {"fs: SYNCFS", sync_mounts},
      {"fs: attributes of symlinks", symlink_attributes},
      {"fs: malformed requests", malformed},
      {"fs: request shorter than a header", short_header},
      {"fs: many requests at once", concurrent},
      {"fs: descriptors run out", descriptors_run_out},
      {"fs: filesystem without ACLs", filesystem_without_acls},
      {"fs: no room for what is made", no_room_for_what_is_made},
      {"fs: more nodes than descriptors", more_nodes_than_descriptors},
      {"fs: descriptors that are all in use", descriptors_all_in_use},
      {"fs: descriptors of a flat volume", descriptors_of_a_flat_volume},
      {"fs: descriptors of names not asked for", descriptors_of_names_not_asked_for},
      {"fs: inode numbers used again", numbers_used_again},
      {"fs: the keeper of handles", keeper_alone},
      {"fs: stop under load", stop_under_load},
      {"fs: a request that there is nothing to read of", no_readable_part},
      {"fs: pieces of no bytes", empty_pieces},
      {"fs: FSYNC and FSYNCDIR", sync_handles},
      {"fs: what is synced is on the disk", synced_to_disk},
      {"fs priority: tables and requests that change while they are read", changing_forgets},
  };
  for (const Breakage& how : breakages()) {
    out.push_back({std::string("fs: ") + how.name, [&how] { break_queue(how, request_queue); }});
    out.push_back({std::string("fs priority: ") + how.name, [&how] { break_queue(how, priority_queue); }});
  }
  return out;
}

}  // namespace tskata::testing
