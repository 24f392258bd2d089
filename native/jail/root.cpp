// Detached copies of mounts, placed into a tmpfs that becomes the root.
#include "jail/root.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "linux/descriptor.h"

namespace tskata::jail {

namespace {

using os::Descriptor;

template <typename Result>
int attempt(Result result, const std::string& what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return static_cast<int>(result);
}

void set_attributes(int mount, const std::string& path, uint64_t attributes) {
  mount_attr wanted{};
  wanted.attr_set = attributes;
  attempt(::syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &wanted, sizeof wanted), "restrict the mount of " + path);
}

uint64_t attributes_of(View::Kind kind) {
  constexpr uint64_t all = MOUNT_ATTR_NOSUID;
  switch (kind) {
    case View::Kind::execute: return all | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV;
    case View::Kind::write: return all | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;
    case View::Kind::device: return all | MOUNT_ATTR_NOEXEC;
    default: return all | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;
  }
}

// The mount at `path` alone: what is mounted below it on the host is not shown.
Descriptor copy_mount(const View& view) {
  Descriptor mount(attempt(::syscall(SYS_open_tree, AT_FDCWD, view.path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC),
                           "take a copy of the mount of " + view.path));
  set_attributes(mount.get(), view.path, attributes_of(view.kind));
  return mount;
}

void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    const std::string folder = path.substr(0, at);
    if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST && errno != EROFS) attempt(-1, "make " + folder);
  }
}

// A place for the mount: one that an earlier view shows is taken as it is.
void make_place(const std::string& place, bool folder) {
  make_folders(place);
  if (::access(place.c_str(), F_OK) == 0) return;
  if (folder) attempt(::mkdir(place.c_str(), 0755), "make " + place);
  else Descriptor(attempt(::open(place.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444), "make " + place)).reset();
}

void show(const std::string& root, const View& view) {
  const std::string place = root + view.path;
  if (view.kind == View::Kind::link) {
    make_folders(place);
    if (::symlink(view.target.c_str(), place.c_str()) != 0 && errno != EEXIST) attempt(-1, "link " + place);
    return;
  }
  const Descriptor mount = copy_mount(view);
  struct stat facts {};
  attempt(::fstat(mount.get(), &facts), "look at " + view.path);
  make_place(place, S_ISDIR(facts.st_mode));
  attempt(::syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, place.c_str(), MOVE_MOUNT_F_EMPTY_PATH), "show " + view.path);
}

void pivot(const std::string& root) {
  attempt(::chdir(root.c_str()), "enter the new root");
  // The old root comes to lie over the new one, and is taken away from there.
  attempt(::syscall(SYS_pivot_root, ".", "."), "pivot_root");
  attempt(::umount2(".", MNT_DETACH), "leave the host's root");
  attempt(::chdir("/"), "enter the new root");
}

}  // namespace

void enter_root(const RootOptions& options) {
  attempt(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make the mounts private");
  // The folder of the shared tree serves as the place for the new root meanwhile: it is the pod's own and empty.
  const std::string& root = options.shared;
  constexpr unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  attempt(::mount("tskata", root.c_str(), "tmpfs", flags, "mode=0755,size=1m,nr_inodes=4096"), "mount the new root");
  attempt(::mkdir((root + "/proc").c_str(), 0555), "make /proc");
  for (const View& view : options.views) show(root, view);
  const std::string shared = root + options.shared;
  // Device nodes of a container's tree are looked at, never opened, here.
  attempt(::mount("tskata", shared.c_str(), "tmpfs", flags, "mode=0755"), "mount the shared tree");
  pivot(root);
  attempt(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, nullptr), "make the root read-only");
}

void mount_proc() {
  constexpr unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
  // Processes alone: no /proc/sys, no kernel memory, no devices. And of these only those that could be traced, which for the hypervisor
  // is itself: hidepid=invisible would show it all, for group 0 is let through there.
  attempt(::mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=ptraceable"), "mount /proc");
}

}  // namespace tskata::jail
