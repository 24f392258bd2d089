// What a guest tries to reach by way of its tree: the folder beside it, the host's devices, the server's own process. Whatever it tries, and
// whoever changes the tree meanwhile, nothing beside it is read or changed, and no request waits for ever.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <atomic>
#include <cstdio>

#include "fuzz/fs_guest.h"

namespace tskata::testing {

namespace {

constexpr auto time_of_races = std::chrono::milliseconds(1500);
constexpr auto patience = std::chrono::seconds(10);

// Everything of the folder beside the tree that a change would leave a trace in.
class Beside {
 public:
  explicit Beside(const Guest& guest) : guest_(guest), before_(facts()) {}
  void unchanged() const { expect(facts() == before_, "nothing beside the tree has changed"); }

 private:
  std::string facts() const {
    std::ostringstream out;
    const auto tell = [&out](const std::string& path) {
      struct stat at {};
      os::checked(::lstat(path.c_str(), &at), "lstat");
      out << path << ' ' << at.st_mode << ' ' << at.st_uid << ' ' << at.st_nlink << ' ' << at.st_size << ' ' << at.st_mtim.tv_sec << '.'
          << at.st_mtim.tv_nsec << ' ' << at.st_ctim.tv_sec << '.' << at.st_ctim.tv_nsec << '\n';
    };
    tell(guest_.outside(""));
    for (const auto& entry : files::recursive_directory_iterator(guest_.outside(""))) tell(entry.path());
    return out.str() + guest_.content(guest_.outside("secret"));
  }

  const Guest& guest_;
  std::string before_;
};

void release(Guest& guest, uint64_t node, uint64_t handle) { guest.call(FUSE_RELEASE, node, bytes_of(fuse_release_in{handle, 0, 0, 0})); }

// Another container, or the host, puts one and then the other at a name, as fast as it can, while requests come by that name.
class Swapper {
 public:
  Swapper(std::string one, std::string other)
      : thread_([this, one = std::move(one), other = std::move(other)](const std::stop_token& done) {
          while (!done.stop_requested()) {
            if (::syscall(SYS_renameat2, AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0) ++swaps_;
          }
        }) {}
  size_t swaps() const { return swaps_; }

 private:
  std::atomic<size_t> swaps_ = 0;
  std::jthread thread_;
};

// Until what was to be met has been, on a machine that is busy.
void race(const std::function<void()>& attempt, const std::function<bool()>& met) {
  const auto end = std::chrono::steady_clock::now() + time_of_races;
  for (auto now = end - time_of_races; now < end || (!met() && now < end + patience); now = std::chrono::steady_clock::now()) attempt();
  expect(met(), "both were met");
}

// A folder and a symlink to the folder beside the tree.
void folder_swaps() {
  Guest guest;
  std::ofstream(guest.outside("dir-entry")) << "secret";
  const std::string volume = guest.host("c1/mounts/v");
  files::create_directories(volume + "/place");
  std::ofstream(volume + "/place/secret") << "inside";
  std::ofstream(volume + "/mine") << "mine";
  files::create_symlink(guest.outside(""), volume + "/other");
  const uint64_t parent = guest.node("c1/mounts/v");
  const Beside beside(guest);
  const Swapper swapper(volume + "/place", volume + "/other");
  size_t folders = 0;
  size_t links = 0;
  race(
      [&] {
        const Reply found = guest.lookup(parent, "place");
        if (found.error != 0) return expect(found.error == ENOENT || found.error == EAGAIN, "LOOKUP, errno " + std::to_string(found.error));
        const auto entry = found.as<fuse_entry_out>();
        const uint64_t place = entry.nodeid;
        ++(S_ISDIR(entry.attr.mode) ? folders : links);
        expect(guest.lookup(place, "dir-entry").error != 0, "LOOKUP of what is beside the tree");
        if (const Reply inner = guest.lookup(place, "secret"); inner.error == 0) {
          const uint64_t node = inner.as<fuse_entry_out>().nodeid;
          const uint64_t handle = guest.open(node, O_RDWR);
          expect(guest.read(node, handle, 0, 100).body == "inside", "OPEN and READ");
          expect(guest.write(node, handle, 0, "inside").error == 0, "WRITE");
          release(guest, node, handle);
        }
        const Reply made = guest.call(FUSE_CREATE, place, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text("made")));
        if (made.error == 0) release(guest, made.as<fuse_entry_out>().nodeid, made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh);
        guest.call(FUSE_MKDIR, place, bytes_of(fuse_mkdir_in{0755, 0}, text("folder")));
        guest.call(FUSE_RENAME, parent, bytes_of(fuse_rename_in{place}, text("mine"), text("mine")));
        guest.call(FUSE_RENAME, place, bytes_of(fuse_rename_in{parent}, text("mine"), text("mine")));
        guest.call(FUSE_RENAME, place, bytes_of(fuse_rename_in{parent}, text("dir-entry"), text("stolen")));
        guest.call(FUSE_UNLINK, place, text("dir-entry"));
        guest.call(FUSE_UNLINK, place, text("made"));
        guest.call(FUSE_RMDIR, place, text("folder"));
      },
      [&] { return folders > 0 && links > 0 && swapper.swaps() > 0; });
  expect(!files::exists(volume + "/stolen"), "nothing was taken from beside the tree");
  beside.unchanged();
}

// A file, and what it is swapped with: nothing is written through a symlink, a FIFO is not waited for.
void file_swaps(const std::function<void(const Guest&, const std::string& other)>& make) {
  Guest guest;
  const std::string volume = guest.host("c1/mounts/v");
  std::ofstream(volume + "/place") << "inside";
  make(guest, volume + "/other");
  const uint64_t parent = guest.node("c1/mounts/v");
  const Beside beside(guest);
  const Swapper swapper(volume + "/place", volume + "/other");
  size_t opened = 0;
  size_t refused = 0;
  const auto attempt = [&](uint64_t node, uint64_t handle) {
    ++opened;
    expect(guest.read(node, handle, 0, 100).body != "secret", "READ");
    expect(guest.write(node, handle, 0, "inside").error == 0, "WRITE");
    release(guest, node, handle);
  };
  race(
      [&] {
        const Reply found = guest.lookup(parent, "place");
        if (found.error == 0) {
          const uint64_t node = found.as<fuse_entry_out>().nodeid;
          const Reply open = guest.call(FUSE_OPEN, node, bytes_of(fuse_open_in{O_RDWR | O_TRUNC, 0}));
          if (open.error == 0) attempt(node, open.as<fuse_open_out>().fh);
          else ++refused;
          fuse_setattr_in change{};
          change.valid = FATTR_SIZE;
          change.size = 3;
          guest.call(FUSE_SETATTR, node, bytes_of(change));
        }
        const Reply made = guest.call(FUSE_CREATE, parent, bytes_of(fuse_create_in{O_RDWR | O_TRUNC, 0644, 0, 0}, text("place")));
        if (made.error == 0) attempt(made.as<fuse_entry_out>().nodeid, made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh);
      },
      [&] { return opened > 0 && refused > 0 && swapper.swaps() > 0; });
  beside.unchanged();
}

void hard_links() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const Beside beside(guest);
  for (const char* name : {"link", "secret"}) {
    const auto linked =
        guest.call(FUSE_LINK, rootfs, bytes_of(fuse_link_in{guest.node(std::string("c1/rootfs/") + name)}, text(std::string(name) + "2")));
    expect(S_ISLNK(linked.as<fuse_entry_out>().attr.mode), "a link of a symlink is one of the symlink");
  }
  const uint64_t file = guest.node("c1/rootfs/file");
  for (const std::string name : {"..", "../x", "/x", "link/x", ""}) {
    expect(guest.call(FUSE_LINK, rootfs, bytes_of(fuse_link_in{file}, text(name))).error == EINVAL, "LINK at \"" + name + "\"");
  }
  expect(guest.call(FUSE_LINK, guest.node("c1/rootfs/link"), bytes_of(fuse_link_in{file}, text("x"))).error == ENOTDIR, "LINK below a symlink");
  expect(guest.call(FUSE_LINK, rootfs, bytes_of(fuse_link_in{guest.node("c1/rootfs/dir")}, text("x"))).error == EPERM, "LINK of a folder");
  expect(guest.call(FUSE_LINK, rootfs, bytes_of(fuse_link_in{9999}, text("x"))).error == ESTALE, "LINK of what was never told");
  beside.unchanged();
}

// A bind mount in the tree is of the folder beside it, read-only: no way of the guest's own mounts is longer than that.
void mount_points() {
  need_own_mounts();
  Guest guest;
  const Mount inner(guest.host("c1/mounts/v/disk"));
  std::ofstream(guest.host("c1/mounts/v/disk/file")) << "disk";
  const Mount shown(guest.outside(""), guest.host("c1/mounts/v/shown"), MS_RDONLY);
  const Beside beside(guest);
  const uint64_t volume = guest.node("c1/mounts/v");
  const uint64_t disk = guest.node("c1/mounts/v/disk");
  const uint64_t read_only = guest.node("c1/mounts/v/shown");
  const uint64_t secret = guest.node("c1/mounts/v/shown/secret");
  const auto error = [&guest](uint32_t opcode, uint64_t node, const std::string& body) { return guest.call(opcode, node, body).error; };
  expect(guest.lookup(disk, "..").error == EINVAL && guest.lookup(read_only, "..").error == EINVAL, "above a mount");
  expect(error(FUSE_RMDIR, volume, text("disk")) == EBUSY, "RMDIR of a mount point");
  expect(error(FUSE_RENAME, volume, bytes_of(fuse_rename_in{volume}, text("disk"), text("moved"))) == EBUSY, "RENAME of one");
  expect(error(FUSE_RENAME, read_only, bytes_of(fuse_rename_in{volume}, text("secret"), text("moved"))) != 0, "RENAME out of a mount");
  expect(error(FUSE_RENAME, volume, bytes_of(fuse_rename_in{disk}, text("file"), text("moved"))) != 0, "RENAME into one");
  expect(error(FUSE_LINK, volume, bytes_of(fuse_link_in{secret}, text("hard"))) == EXDEV, "LINK out of a mount");
  expect(error(FUSE_OPEN, secret, bytes_of(fuse_open_in{O_RDWR, 0})) == EROFS, "OPEN to write");
  expect(error(FUSE_OPEN, secret, bytes_of(fuse_open_in{O_RDONLY | O_TRUNC, 0})) == EROFS, "OPEN that truncates");
  expect(error(FUSE_CREATE, read_only, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text("new"))) == EROFS, "CREATE");
  expect(error(FUSE_UNLINK, read_only, text("secret")) == EROFS, "UNLINK");
  fuse_setattr_in change{};
  change.valid = FATTR_MODE | FATTR_MTIME;
  expect(error(FUSE_SETATTR, secret, bytes_of(change)) == EROFS, "SETATTR");
  fuse_setxattr_in attribute{};
  attribute.size = 1;
  expect(error(FUSE_SETXATTR, secret, bytes_of(attribute, text("user.x"), std::string("1"))) != 0, "SETXATTR");
  beside.unchanged();
  os::checked(::umount2(guest.host("c1/mounts/v/disk").c_str(), MNT_DETACH), "umount");
  expect(guest.lookup(volume, "disk").as<fuse_entry_out>().nodeid != disk, "what was below the mount");
  expect(guest.lookup(disk, "file").error == 0, "who is there stays");
}

// A volume that shows a /proc with the server in it: its links lead where its files are opened, and its memory is a file there.
void own_process() {
  need_own_mounts();
  Guest guest;
  const Mount proc("/proc", guest.host("c1/mounts/v"));
  const Beside beside(guest);
  const uint64_t volume = guest.node("c1/mounts/v");
  for (const char* name : {"self", "thread-self"}) {
    const auto entry = guest.lookup(volume, name).as<fuse_entry_out>();
    expect(S_ISLNK(entry.attr.mode) && guest.lookup(entry.nodeid, "root").error == ENOTDIR, "it is a symlink, for the guest to follow");
  }
  const auto threads = files::directory_iterator("/proc/self/task");
  for (const auto& thread : threads) {
    expect(guest.lookup(volume, thread.path().filename()).error == ENOENT, "the server's own threads are not shown");
  }
  expect(guest.lookup(volume, std::to_string(::getpid())).error == ENOENT, "nor is its process");
  for (const auto& [name, one] : guest.list(volume, 65536)) {
    expect(name != std::to_string(::getpid()) || one.entry.nodeid == 0, "nor is it given a node by READDIRPLUS");
  }
  const uint64_t status = guest.node("c1/mounts/v/stat");
  const uint64_t handle = guest.open(status);
  expect(guest.read(status, handle, 0, 100).body.starts_with("cpu"), "what is of the whole host is what such a volume is for");
  beside.unchanged();
}

// The links of another process: to its root, its folder, its files.
void magic_links() {
  need_own_mounts();
  std::array<int, 2> ends{};
  os::checked(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
  const os::Descriptor reads(ends[0]);
  os::Descriptor writes(ends[1]);
  const pid_t child = os::checked(::fork(), "fork");
  if (child == 0) {
    ::close(ends[1]);
    char end;
    (void)!::read(ends[0], &end, 1);  // until this process has gone
    ::_exit(0);
  }
  Guest guest;
  const Mount proc("/proc", guest.host("c1/mounts/v"));
  const Beside beside(guest);
  const std::string process = "c1/mounts/v/" + std::to_string(child);
  fuse_setattr_in change{};
  change.valid = FATTR_MODE | FATTR_SIZE;
  for (const std::string name : {"/root", "/cwd", "/exe", "/fd/0", "/ns/mnt"}) {
    const uint64_t link = guest.node(process + name);
    expect(S_ISLNK(guest.call(FUSE_GETATTR, link, bytes_of(fuse_getattr_in{})).as<fuse_attr_out>().attr.mode), "a symlink");
    expect(guest.lookup(link, "etc").error == ENOTDIR, "nothing is below " + name);
    expect(guest.call(FUSE_OPEN, link, bytes_of(fuse_open_in{O_RDONLY, 0})).error == EINVAL, "OPEN of " + name);
    expect(guest.call(FUSE_OPENDIR, link, bytes_of(fuse_open_in{O_DIRECTORY, 0})).error == EINVAL, "OPENDIR of " + name);
    expect(guest.call(FUSE_CREATE, link, bytes_of(fuse_create_in{O_RDWR, 0644, 0, 0}, text("x"))).error == ENOTDIR, "CREATE below " + name);
    expect(guest.call(FUSE_SETATTR, link, bytes_of(change)).error != 0, "SETATTR of " + name);
    expect(guest.call(FUSE_LINK, guest.node("c1/rootfs"), bytes_of(fuse_link_in{link}, text("x"))).error == EXDEV, "LINK of " + name);
  }
  expect(guest.lookup(guest.node(process), "stat").error == 0, "a process may be looked at");
  expect(guest.lookup(guest.node(process), "mem").error == ENOENT, "but not its memory");
  expect(guest.lookup(guest.node(process + "/task/" + std::to_string(child)), "mem").error == ENOENT, "nor by a thread");
  beside.unchanged();
  writes.reset();
}

// What the guest makes itself: it is there for its own kernel to open.
void made_special_files() {
  Guest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  struct Special {
    const char* name;
    uint32_t mode, device;
  };
  const auto number = [](uint32_t major, uint32_t minor) { return minor | major << 8; };
  for (const Special& one : std::array<Special, 7>{{{"null", S_IFCHR, number(1, 3)},
                                                    {"mem", S_IFCHR, number(1, 1)},
                                                    {"ptmx", S_IFCHR, number(5, 2)},
                                                    {"kvm", S_IFCHR, number(10, 232)},
                                                    {"disk", S_IFBLK, number(8, 0)},
                                                    {"pipe", S_IFIFO, 0},
                                                    {"socket", S_IFSOCK, 0}}}) {
    const std::string name = one.name;
    const Reply made = guest.call(FUSE_MKNOD, rootfs, bytes_of(fuse_mknod_in{one.mode | 0666, one.device, 0, 0}, text(name)));
    if (made.error == EPERM) continue;  // who may not make devices has none to open
    const auto entry = made.as<fuse_entry_out>();
    expect((entry.attr.mode & S_IFMT) == one.mode && entry.attr.rdev == one.device, name + " is what it was made as");
    const size_t before = open_descriptors();
    for (const uint32_t flags : {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_RDONLY | O_NONBLOCK, O_PATH}) {
      expect(guest.call(FUSE_OPEN, entry.nodeid, bytes_of(fuse_open_in{flags, 0})).error == EINVAL, "OPEN of " + name);
      expect(guest.call(FUSE_CREATE, rootfs, bytes_of(fuse_create_in{flags, 0644, 0, 0}, text(name))).error == EINVAL, "CREATE of " + name);
    }
    expect(guest.call(FUSE_OPENDIR, entry.nodeid, bytes_of(fuse_open_in{0, 0})).error == EINVAL, "OPENDIR of " + name);
    fuse_setattr_in change{};
    change.valid = FATTR_SIZE;
    expect(guest.call(FUSE_SETATTR, entry.nodeid, bytes_of(change)).error == EINVAL, "truncation of " + name);
    expect(guest.call(FUSE_SYNCFS, entry.nodeid, bytes_of(fuse_syncfs_in{})).error == EINVAL, "SYNCFS of " + name);
    expect(open_descriptors() == before, "nothing of it is open");
  }
}

void changing_requests() {
  Guest guest;
  const Beside beside(guest);
  const uint64_t rootfs = guest.node("c1/rootfs");
  for (const uint32_t opcode : {FUSE_LOOKUP, FUSE_CREATE, FUSE_WRITE, FUSE_BATCH_FORGET, FUSE_SETXATTR}) {
    fuse_in_header header{};
    header.opcode = opcode;
    header.nodeid = rootfs;
    header.len = sizeof header + 80;
    const std::string request = bytes_of(header, std::array<uint32_t, 8>{2, 0644, 2, 0}, text("../secret"), std::string(38, 'x'));
    const auto bytes = std::as_bytes(std::span(request));
    flip_tables(guest.front(), request_queue, {{bytes.begin(), bytes.end()}, 2048});
  }
  // One of the flips may have ended the session.
  expect(guest.init().error == 0 || guest.lookup(root, "c1").error == 0, "the device lives");
  expect(guest.lookup(root, "c1").error == 0, "and serves");
  beside.unchanged();
}

}  // namespace

std::vector<Case> fs_hostile_cases() {
  return {
      {"fs: a folder and a symlink out of the tree swapped in a loop", folder_swaps},
      {"fs: a file and a symlink out of the tree swapped in a loop",
       [] { file_swaps([](const Guest& guest, const std::string& other) { files::create_symlink(guest.outside("secret"), other); }); }},
      {"fs: a file and a FIFO swapped in a loop",
       [] { file_swaps([](const Guest&, const std::string& other) { os::checked(::mkfifo(other.c_str(), 0666), "mkfifo"); }); }},
      {"fs: a file and a device swapped in a loop",
       [] {
         need_root();
         file_swaps([](const Guest&, const std::string& other) { os::checked(::mknod(other.c_str(), S_IFCHR | 0666, makedev(1, 3)), "mknod"); });
       }},
      {"fs: hard links", hard_links},
      {"fs: mount points", mount_points},
      {"fs: a volume that shows the server's own process", own_process},
      {"fs: magic links of /proc", magic_links},
      {"fs: special files that the guest has made", made_special_files},
      {"fs: tables and requests that change while they are read", changing_requests},
  };
}

}  // namespace tskata::testing
