// open_tree, mount_setattr, move_mount; and the thread that does it elsewhere.
#include "linux/mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "linux/mount_table.h"

namespace tskata::os {

namespace {

Descriptor open_below(int root, const std::string& path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return Descriptor(checked(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)), "openat2"));
}

// Runs `body` in the mount namespace of `pid`. A thread of its own: setns to a mount namespace wants an fs_struct nobody shares,
// and this thread ends with it.
// `body` gets this thread's folder of /proc as it was opened before: the one of that namespace may show other processes alone.
void in_mount_namespace(int pid, const std::function<void(int proc)>& body) {
  const std::string path = "/proc/" + std::to_string(pid) + "/ns/mnt";
  const Descriptor space(checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open mount namespace"));
  std::exception_ptr failure;
  std::thread([&] {
    try {
      const Descriptor proc(checked(::open("/proc/thread-self", O_PATH | O_DIRECTORY | O_CLOEXEC), "open /proc/thread-self"));
      checked(::unshare(CLONE_FS), "unshare");
      checked(::setns(space.get(), CLONE_NEWNS), "setns");
      body(proc.get());
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> out;
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string name = path.substr(at, end - at);
    if (name == "..") throw std::system_error(EINVAL, std::generic_category(), "mount target");
    if (!name.empty() && name != ".") out.push_back(name);
    at = end + 1;
  }
  if (out.empty()) throw std::system_error(EINVAL, std::generic_category(), "mount target");
  return out;
}

void make_target(int root, const std::string& target, bool directory) {
  const std::vector<std::string> names = components(target);
  Descriptor folder = open_below(root, ".", O_PATH | O_DIRECTORY);
  for (size_t i = 0; i < names.size(); ++i) {
    const bool last = i + 1 == names.size();
    if (last && !directory) {
      const Descriptor file(::openat(folder.get(), names[i].c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644));
      if (!file && errno != EEXIST) throw std::system_error(errno, std::generic_category(), "create mount target");
      return;
    }
    if (::mkdirat(folder.get(), names[i].c_str(), 0755) != 0 && errno != EEXIST) {
      throw std::system_error(errno, std::generic_category(), "mkdir mount target");
    }
    folder = open_below(folder.get(), names[i], O_PATH | O_DIRECTORY);
  }
}

bool is_mount(int fd) {
  struct statx facts {};
  checked(::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_TYPE, &facts), "statx");
  return (facts.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

void remove_empty(int folder, const std::string& name) {
  if (::unlinkat(folder, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return;
  if (errno == ENOTDIR) {
    (void)::unlinkat(folder, name.c_str(), 0);
    return;
  }
  const Descriptor inner(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!inner) return;
  std::vector<std::string> names;
  if (DIR* const stream = ::fdopendir(::dup(inner.get()))) {
    while (const dirent* const entry = ::readdir(stream)) {
      const std::string found = entry->d_name;
      if (found != "." && found != "..") names.push_back(found);
    }
    ::closedir(stream);
  }
  for (const std::string& below : names) remove_empty(inner.get(), below);
  (void)::unlinkat(folder, name.c_str(), AT_REMOVEDIR);
}

}  // namespace

Descriptor open_tree(const std::string& path, bool recursive) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u);
  return Descriptor(checked(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), flags)), "open_tree"));
}

void set_tree_attributes(int tree, const TreeAttributes& attributes) {
  mount_attr wanted{};
  if (attributes.readonly) wanted.attr_set |= MOUNT_ATTR_RDONLY;
  if (attributes.nodev) wanted.attr_set |= MOUNT_ATTR_NODEV;
  if (attributes.nosuid) wanted.attr_set |= MOUNT_ATTR_NOSUID;
  wanted.propagation = attributes.propagation;
  if (wanted.attr_set == 0 && wanted.propagation == 0) return;
  const unsigned flags = AT_EMPTY_PATH | (attributes.recursive ? AT_RECURSIVE : 0u);
  checked(static_cast<int>(::syscall(SYS_mount_setattr, tree, "", flags, &wanted, sizeof wanted)), "mount_setattr");
}

void place_tree(int tree, int pid, const Place& place) {
  in_mount_namespace(pid, [&](int) {
    const Descriptor base(checked(::open(place.root.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open shared tree"));
    make_target(base.get(), place.target, place.directory);
    const Descriptor point = open_below(base.get(), place.target, O_PATH | (place.directory ? O_DIRECTORY : 0));
    if (place.if_empty && is_mount(point.get())) return;
    checked(static_cast<int>(::syscall(SYS_move_mount, tree, "", point.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)), "move_mount");
  });
}

void remove_tree(int pid, const std::string& root, const std::string& target) {
  in_mount_namespace(pid, [&](int proc) {
    const std::vector<std::string> names = components(target);
    std::string path = root;
    for (const std::string& name : names) path += "/" + name;
    std::vector<std::string> points = mount_points(proc, path);
    // Deepest first; a mount over another of the same point comes later in the table, so it goes first too.
    std::ranges::reverse(points);
    for (const std::string& point : points) checked(::umount2(point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW), "umount2");
    const Descriptor base(checked(::open(root.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open shared tree"));
    std::string parent = ".";
    for (size_t i = 0; i + 1 < names.size(); ++i) parent += "/" + names[i];
    Descriptor folder;
    try {
      folder = open_below(base.get(), parent, O_RDONLY | O_DIRECTORY);
    } catch (const std::system_error& error) {
      if (error.code().value() == ENOENT) return;  // never placed
      throw;
    }
    remove_empty(folder.get(), names.back());
  });
}

}  // namespace tskata::os
