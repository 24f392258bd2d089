// Mounts: filesystems by mount(2), binds by open_tree and move_mount, attributes by mount_setattr.
#include "launcher/mounts.h"

#include <fcntl.h>
#include <sched.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// glibc's <sys/mount.h> and <linux/mount.h> do not go together before 2.37; this is what is needed of the former.
extern "C" int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept;
extern "C" int umount2(const char* target, int flags) noexcept;

#include "launcher/copy.h"
#include "launcher/step.h"
#include "linux/proc_path.h"

namespace tskata::launcher {

namespace {

std::string step_of(const Mount& mount) {
  if ((mount.options & mount_bind) != 0) return "bind " + mount.target;
  return "mount " + mount.target + (mount.type.empty() ? "" : " (" + mount.type + ")");
}

bool is_folder(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode);
}

void set_attributes(int fd, uint64_t set, uint64_t clear, bool recursive, const std::string& step) {
  if (set == 0 && clear == 0) return;
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  // A mount has one of the access time modes: setting one means clearing the others (mount_setattr(2)).
  if ((set & MOUNT_ATTR__ATIME) != 0 || (clear & MOUNT_ATTR__ATIME) != 0) attributes.attr_clr |= MOUNT_ATTR__ATIME;
  const unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  attempt(::syscall(SYS_mount_setattr, fd, "", flags, &attributes, sizeof attributes), step + ": set its attributes");
}

void set_all_attributes(int fd, const Mount& mount) {
  set_attributes(fd, mount.recursive_attr_set, mount.recursive_attr_clear, true, step_of(mount));
  set_attributes(fd, mount.attr_set, mount.attr_clear, false, step_of(mount));
}

os::Descriptor clone_tree(const os::Descriptor& source, bool recursive, const std::string& step) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return os::Descriptor(attempt(static_cast<int>(::syscall(SYS_open_tree, source.get(), "", flags)), step));
}

// The folder or file itself: a container of the pod that may write to what is above could have put a symlink to the guest's own files in the way.
os::Descriptor open_source(const std::string& path, const std::string& step) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS;
  return os::Descriptor(attempt(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)), step));
}

void attach(int tree, int target, const std::string& step) {
  attempt(::syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), step);
}

os::Descriptor make_target(const Root& root, const std::string& target, bool folder) {
  return folder ? root.make_folder(target) : root.make_file(target);
}

void bind(const Root& root, const Mount& mount) {
  const std::string step = step_of(mount);
  const os::Descriptor tree = clone_tree(open_source(mount.source, step), (mount.options & mount_recursive_bind) != 0, step);
  set_all_attributes(tree.get(), mount);
  attach(tree.get(), make_target(root, mount.target, is_folder(tree.get())).get(), step);
}

// The container's own part of the hierarchy: by the cgroup namespace, or without one by a bind of its folder.
void mount_cgroup_tree(const Root& root, const Plan& plan, const Mount& mount) {
  if ((plan.new_namespaces & CLONE_NEWCGROUP) != 0) {
    const os::Descriptor target = root.make_folder(mount.target);
    if (::mount("cgroup", os::proc_path(target.get()).c_str(), "cgroup2", mount.flags, nullptr) == 0) return;
    // The guest's own hierarchy is there already, below a /sys that had to be bound whole (bind_sysfs_instead).
    if (errno != EBUSY) throw StepError(step_of(mount), errno);
  }
  Mount own = mount;
  own.options = mount_bind | mount_recursive_bind;
  own.source = plan.cgroup;
  bind(root, own);
}

// sysfs belongs to the network namespace, which is the pod's: a container's user namespace may not mount it, but may see it.
bool bind_sysfs_instead(const Root& root, const Plan& plan, const Mount& mount) {
  if (mount.type != "sysfs" || errno != EPERM || (plan.new_namespaces & CLONE_NEWUSER) == 0) return false;
  Mount own = mount;
  own.options = mount_bind | mount_recursive_bind;
  own.source = "/sys";
  own.recursive_attr_set |= MOUNT_ATTR_RDONLY;
  bind(root, own);
  return true;
}

void copy_up(const Root& root, const Mount& mount) {
  const std::string step = step_of(mount) + ": tmpcopyup";
  const os::Descriptor covered = root.make_folder(mount.target);
  // A folder of the guest's own /run that only this mount namespace has covered.
  const std::string draft = "/run/tskata/copy-up";
  attempt(::mount(mount.source.c_str(), draft.c_str(), "tmpfs", mount.flags & ~1ul /* MS_RDONLY */, mount.data.c_str()), step);
  const os::Descriptor from(attempt(::open(os::proc_path(covered.get()).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), step));
  const os::Descriptor to(attempt(::open(draft.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), step));
  copy_folder(from.get(), to.get());
  const os::Descriptor tree = clone_tree(to, false, step);
  attempt(::umount2(draft.c_str(), 2 /* MNT_DETACH */), step);
  if ((mount.flags & 1) != 0) set_attributes(tree.get(), MOUNT_ATTR_RDONLY, 0, false, step);
  attach(tree.get(), covered.get(), step);
}

void remount(const Root& root, const Mount& mount) {
  const os::Descriptor target = root.find(mount.target);
  attempt(target ? 0 : -1, step_of(mount));
  set_all_attributes(target.get(), mount);
}

void mount_filesystem(const Root& root, const Plan& plan, const Mount& mount) {
  const os::Descriptor target = root.make_folder(mount.target);
  const std::string path = os::proc_path(target.get());
  const void* const data = mount.data.empty() ? nullptr : mount.data.c_str();
  if (::mount(mount.source.c_str(), path.c_str(), mount.type.c_str(), mount.flags, data) < 0) {
    if (bind_sysfs_instead(root, plan, mount)) return;
    throw StepError(step_of(mount), errno);
  }
  if (mount.recursive_attr_set != 0 || mount.recursive_attr_clear != 0) {
    Mount recursive = mount;
    recursive.attr_set = recursive.attr_clear = 0;
    remount(root, recursive);
  }
}

void set_propagation(const Root& root, const Mount& mount) {
  if (mount.propagation.empty()) return;
  const os::Descriptor target = root.find(mount.target);
  attempt(target ? 0 : -1, step_of(mount));
  for (const uint64_t flags : mount.propagation) {
    attempt(::mount(nullptr, os::proc_path(target.get()).c_str(), nullptr, flags, nullptr), step_of(mount) + ": set its propagation");
  }
}

}  // namespace

void do_mount(const Root& root, const Plan& plan, const Mount& mount) {
  if ((mount.options & mount_remount) != 0) remount(root, mount);
  else if ((mount.options & mount_cgroup) != 0) mount_cgroup_tree(root, plan, mount);
  else if ((mount.options & mount_bind) != 0) bind(root, mount);
  else if ((mount.options & mount_copy_up) != 0) copy_up(root, mount);
  else mount_filesystem(root, plan, mount);
  set_propagation(root, mount);
}

void make_readonly(const Root& root, const std::string& path) {
  const std::string step = "make " + path + " read-only";
  const os::Descriptor target = root.find(path);
  if (!target) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    throw StepError(step, errno);
  }
  const os::Descriptor tree = clone_tree(target, true, step);
  set_attributes(tree.get(), MOUNT_ATTR_RDONLY, 0, true, step);
  attach(tree.get(), target.get(), step);
}

void mask(const Root& root, const std::string& path) {
  const std::string step = "mask " + path;
  const os::Descriptor target = root.find(path);
  if (!target) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    throw StepError(step, errno);
  }
  if (is_folder(target.get())) {
    attempt(::mount("tmpfs", os::proc_path(target.get()).c_str(), "tmpfs", 1 /* MS_RDONLY */, "size=0k"), step);
    return;
  }
  const os::Descriptor null = root.find("/dev/null");
  attempt(null ? 0 : -1, step);
  const os::Descriptor tree = clone_tree(null, false, step);
  attach(tree.get(), target.get(), step);
}

}  // namespace tskata::launcher
