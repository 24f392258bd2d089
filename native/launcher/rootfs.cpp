// The way into the root filesystem, step by step in the order that each needs the one before.
#include "launcher/rootfs.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher/inside.h"
#include "launcher/mounts.h"
#include "launcher/step.h"
#include "launcher/sysctls.h"
#include "launcher/terminal.h"

extern "C" int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept;
extern "C" int umount2(const char* target, int flags) noexcept;

namespace tskata::launcher {

namespace {

void prepare_root(const Plan& plan) {
  // Nothing that happens below may reach the agent's mounts. What linux.rootfsPropagation asks for comes last: an unbindable root could
  // not be bound here, a shared one not be pivoted to.
  const bool cut_off = (plan.rootfs_propagation & MS_PRIVATE) != 0;
  attempt(::mount(nullptr, "/", nullptr, (cut_off ? MS_PRIVATE : MS_SLAVE) | MS_REC, nullptr), "set the root's propagation");
  attempt(::mount(plan.rootfs.c_str(), plan.rootfs.c_str(), nullptr, MS_BIND | MS_REC, nullptr), "bind the root filesystem");
  // pivot_root(2) wants the parent mount private.
  attempt(::mount(nullptr, plan.rootfs.c_str(), nullptr, MS_PRIVATE, nullptr), "make the root filesystem's mount private");
}

void set_names(const Plan& plan) {
  if (!plan.hostname.empty()) attempt(::sethostname(plan.hostname.data(), plan.hostname.size()), "set the hostname");
  if (!plan.domainname.empty()) attempt(::setdomainname(plan.domainname.data(), plan.domainname.size()), "set the domain name");
}

bool same_device(int fd, const Device& device) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 && (facts.st_mode & S_IFMT) == (device.mode & S_IFMT) &&
         (S_ISFIFO(device.mode) || facts.st_rdev == ::makedev(device.major, device.minor));
}

void make_node(const Root& root, const Device& device) {
  const std::string step = "make the device " + device.path;
  std::string name;
  const os::Descriptor parent = root.make_parent(device.path, name);
  if (::mknodat(parent.get(), name.c_str(), device.mode, ::makedev(device.major, device.minor)) != 0) {
    if (errno != EEXIST) throw StepError(step, errno);
    const os::Descriptor there = root.find(device.path);
    if (!there || !same_device(there.get(), device)) throw StepError(step, EEXIST);
  }
  attempt(::fchmodat(parent.get(), name.c_str(), device.mode & 07777, 0), step);
  attempt(::fchownat(parent.get(), name.c_str(), device.uid, device.gid, AT_SYMLINK_NOFOLLOW), step);
}

// A user namespace may not make nodes; the guest's own, of the same name, are bound instead, as runc does.
void bind_node(const Root& root, const Plan& plan, const Device& device) {
  Mount mount{};
  mount.source = device.path;
  mount.target = device.path;
  mount.options = mount_bind;
  do_mount(root, plan, mount);
}

void make_devices(const Root& root, const Plan& plan) {
  const bool user = (plan.new_namespaces & CLONE_NEWUSER) != 0;
  for (const Device& device : plan.devices) {
    if (user) bind_node(root, plan, device);
    else make_node(root, device);
  }
  for (const auto& [path, target] : plan.links) {
    std::string name;
    const os::Descriptor parent = root.make_parent(path, name);
    if (::symlinkat(target.c_str(), parent.get(), name.c_str()) == 0) continue;
    if (errno != EEXIST) throw StepError("link " + path, errno);
    if (path != "/dev/ptmx") continue;  // an image's own ptmx must give way to the container's devpts
    ::unlinkat(parent.get(), name.c_str(), 0);
    attempt(::symlinkat(target.c_str(), parent.get(), name.c_str()), "link " + path);
  }
}

void pivot(const Plan& plan) {
  const int old_root = attempt(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open the old root");
  attempt(::chdir(plan.rootfs.c_str()), "chdir to the root filesystem");
  if (plan.has(flag_no_pivot)) {
    attempt(::mount(".", "/", nullptr, MS_MOVE, nullptr), "move the root filesystem to /");
    attempt(::chroot("."), "chroot");
  } else {
    // Stacks the old root over the new one, so that no folder for it is needed (pivot_root(2) NOTES).
    attempt(::syscall(SYS_pivot_root, ".", "."), "pivot_root");
    attempt(::fchdir(old_root), "chdir to the old root");
    attempt(::mount(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr), "make the old root slave");
    attempt(::umount2(".", 2 /* MNT_DETACH */), "unmount the old root");
  }
  ::close(old_root);
  attempt(::chdir("/"), "chdir to /");
}

void finish_propagation(const Plan& plan) {
  if (plan.rootfs_propagation == 0) return;
  attempt(::mount(nullptr, "/", nullptr, plan.rootfs_propagation, nullptr), "set linux.rootfsPropagation");
}

// While the root filesystem can still be written, whatever it becomes.
void make_working_folder(const Plan& plan) {
  for (size_t slash = plan.cwd.find('/', 1);; slash = plan.cwd.find('/', slash + 1)) {
    const std::string folder = plan.cwd.substr(0, slash);
    if (::mkdir(folder.c_str(), 0755) < 0 && errno != EEXIST && errno != EROFS) return;  // chdir tells
    if (slash == std::string::npos) return;
  }
}

void protect(const Plan& plan) {
  const Root root("/");
  for (const std::string& path : plan.readonly_paths) make_readonly(root, path);
  for (const std::string& path : plan.masked_paths) mask(root, path);
  if (!plan.has(flag_root_readonly)) return;
  mount_attr readonly{};
  readonly.attr_set = MOUNT_ATTR_RDONLY;
  attempt(::syscall(SYS_mount_setattr, root.fd(), "", AT_EMPTY_PATH, &readonly, sizeof readonly), "make the root filesystem read-only");
}

}  // namespace

void enter_rootfs(const Plan& plan) {
  set_names(plan);
  prepare_root(plan);
  {
    const Root root(plan.rootfs);
    for (const Mount& mount : plan.mounts) do_mount(root, plan, mount);
    make_devices(root, plan);
  }
  pivot(plan);
  if (plan.has(flag_terminal)) open_terminal(plan);
  write_own_sysctls(plan);
  make_working_folder(plan);
  protect(plan);
  finish_propagation(plan);
}

}  // namespace tskata::launcher
