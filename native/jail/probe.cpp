// tskata-jail-probe: what a thread of a role could still do, found by trying. A test's program (test/vm/jail.test.ts): tskata-jail puts
// it in a sandbox process's place, in the same root, namespaces and capabilities. Each attempt is a process of its own, which gives up
// what a thread of the role does and then tries. A line tells what came of it:
//
//   ROLE ATTEMPT allowed | <errno> | killed by <signal>
//
//   tskata-jail-probe HOST_PID WRITABLE_FOLDER
//
// WRITABLE_FOLDER is one that the root shows; HOST_PID a process of the host's.
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "jail/capabilities.h"
#include "jail/jail.h"
#include "linux/io_ring.h"

namespace {

using namespace tskata::jail;

struct Attempt {
  const char* name;
  std::function<long()> run;       // below 0: failed with errno
  std::function<void()> before{};  // what the process had before it gave up anything
};

long make_block_device(const std::string& folder) {
  const std::string file = folder + "/device";
  const int result = ::mknodat(AT_FDCWD, file.c_str(), S_IFBLK | 0600, makedev(8, 0));
  const int error = errno;
  (void)::unlinkat(AT_FDCWD, file.c_str(), 0);
  errno = error;
  return result;
}

// The device is there, made by a role that may; to open it is another matter.
long open_block_device(const std::string& folder) {
  const std::string file = folder + "/device";
  if (::mknodat(AT_FDCWD, file.c_str(), S_IFBLK | 0600, makedev(8, 0)) != 0) return -1;
  const int result = ::openat(AT_FDCWD, file.c_str(), O_RDONLY);
  const int error = errno;
  (void)::unlinkat(AT_FDCWD, file.c_str(), 0);
  errno = error;
  return result;
}

std::unique_ptr<tskata::os::IoRing> ring;

// Where node could make none: only a ring of a device's size is made before the jail closes.
void make_ring() {
  constexpr std::array<uint8_t, 1> read{IORING_OP_READV};
  io_uring_params any{};
  const bool refused = ::syscall(SYS_io_uring_setup, 256, &any) < 0 && errno == ENOSYS;
  if (refused) ring = tskata::os::IoRing::make(::memfd_create("file", MFD_CLOEXEC), read);
}

long read_through_ring() {
  if (ring == nullptr) return errno = ENXIO, -1;
  std::array<char, 1> byte{};
  const iovec piece{byte.data(), byte.size()};
  io_uring_sqe call{};
  call.opcode = IORING_OP_READV;
  call.addr = reinterpret_cast<uintptr_t>(&piece);
  call.len = 1;
  ring->add(call, 0);
  errno = ring->submit();
  return errno == 0 && ring->take() ? 0 : -1;
}

std::vector<Attempt> attempts(pid_t host_pid, const std::string& folder) {
  const auto open = [](const char* path, int flags) { return [=] { return long{::openat(AT_FDCWD, path, flags | O_CLOEXEC, 0600)}; }; };
  const auto socket = [](int family, int type) { return [=] { return long{::socket(family, type, 0)}; }; };
  const auto call = [](auto... words) { return [=] { return ::syscall(words...); }; };
  return {
      {"open /etc/passwd", open("/etc/passwd", O_RDONLY)},
      {"open /proc/sys/kernel/core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY)},
      {"open /proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY)},
      {"open /dev/mem", open("/dev/mem", O_RDONLY)},
      {"write to /", open("/made", O_WRONLY | O_CREAT)},
      {"open ..", open("../../../../../../../../etc/passwd", O_RDONLY)},
      {"socket AF_INET", socket(AF_INET, SOCK_STREAM)},
      {"socket AF_INET6", socket(AF_INET6, SOCK_DGRAM)},
      {"socket AF_NETLINK", socket(AF_NETLINK, SOCK_RAW)},
      {"socket AF_PACKET", socket(AF_PACKET, SOCK_RAW)},
      {"socket AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM)},
      {"socket AF_ALG", socket(AF_ALG, SOCK_SEQPACKET)},
      {"execve",
       [] {
         char* const none[] = {nullptr};
         return long{::execve("/proc/self/exe", none, none)};
       }},
      {"fork", call(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr)},
      {"unshare user namespace", call(SYS_unshare, CLONE_NEWUSER)},
      {"unshare mount namespace", call(SYS_unshare, CLONE_NEWNS)},
      {"setns", call(SYS_setns, 0, 0)},
      {"mount", call(SYS_mount, "none", folder.c_str(), "tmpfs", 0, nullptr)},
      {"umount", call(SYS_umount2, "/proc", MNT_DETACH)},
      {"pivot_root", call(SYS_pivot_root, ".", ".")},
      {"chroot", call(SYS_chroot, "/")},
      {"open_by_handle_at", call(SYS_open_by_handle_at, 0, nullptr, 0)},
      {"ptrace", call(SYS_ptrace, PTRACE_ATTACH, 1, nullptr, nullptr)},
      {"process_vm_readv", call(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0)},
      {"open memory of process 1", open("/proc/1/mem", O_RDONLY)},
      {"kill a process of the host", call(SYS_kill, host_pid, SIGKILL)},
      {"stop process 1", call(SYS_kill, 1, SIGSTOP)},
      {"keyctl", call(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1)},
      {"add_key", call(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING)},
      {"bpf",
       [] {
         union bpf_attr attributes {};
         attributes.map_type = BPF_MAP_TYPE_ARRAY;
         attributes.key_size = attributes.value_size = 4;
         attributes.max_entries = 1;
         return ::syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
       }},
      {"perf_event_open",
       [] {
         perf_event_attr attributes{};
         attributes.size = sizeof attributes;
         attributes.type = PERF_TYPE_SOFTWARE;
         attributes.exclude_kernel = 1;
         return ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
       }},
      {"userfaultfd", call(SYS_userfaultfd, O_CLOEXEC)},
      {"io_uring_setup", call(SYS_io_uring_setup, tskata::os::IoRing::asked_entries, nullptr)},
      {"read through a device's ring", [] { return read_through_ring(); }, make_ring},
      {"setuid", call(SYS_setuid, 1000)},
      {"capset", [] { return long{set_capabilities(capability(CAP_SYS_ADMIN), 0) == 0 ? 0 : -1}; }},
      {"sethostname", call(SYS_sethostname, "free", 4)},
      {"init_module", call(SYS_init_module, nullptr, 0, "")},
      {"reboot", call(SYS_reboot, 0, 0, 0, nullptr)},
      {"mknod of a block device", [=] { return make_block_device(folder); }},
      {"open a block device", [=] { return open_block_device(folder); }},
      {"make code",
       [] {
         void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return page == MAP_FAILED ? -1L : 0L;
       }},
      {"become another file owner",
       [] {
         (void)::syscall(SYS_setfsuid, 1000);
         if (::syscall(SYS_setfsuid, 1000) == 1000) return 0L;
         errno = EPERM;
         return -1L;
       }},
      {"write in the pod's folder",
       [=] {
         const std::string file = folder + "/probe";
         const int fd = ::openat(AT_FDCWD, file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
         const int error = errno;
         (void)::unlinkat(AT_FDCWD, file.c_str(), 0);
         errno = error;
         return long{fd};
       }},
  };
}

// Ends with 255 where even that failed. The keeper's own capability is not there to be kept: it has it from before.
void confine(Role role) {
  const CapabilitySet kept = role == Role::fs_worker ? file_server_capabilities : 0;
  if (limit_bounding_set(0) != 0 || set_capabilities(kept, 0) != 0 || load(assemble(policy(role), Mode::enforce)) != 0) ::_exit(255);
}

std::string outcome(Role role, const Attempt& attempt) {
  const pid_t child = ::fork();
  if (child < 0) return "could not be made";
  if (child == 0) {
    if (attempt.before) attempt.before();
    confine(role);
    ::_exit(attempt.run() >= 0 ? 0 : errno);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return "killed by SIG" + std::string(::sigabbrev_np(WTERMSIG(status)));
  if (WEXITSTATUS(status) == 0) return "allowed";
  const char* const error = ::strerrorname_np(WEXITSTATUS(status));
  return error == nullptr ? "exit " + std::to_string(WEXITSTATUS(status)) : error;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc <= 1) return 0;  // what the attempt to execute something executes
  if (argc != 3) return 2;
  const std::vector<Attempt> all = attempts(static_cast<pid_t>(std::atoi(argv[1])), argv[2]);
  for (const Role role : {Role::node, Role::fs_worker, Role::keeper, Role::vsock, Role::vhost_user, Role::descriptors, Role::relay, Role::vcpu,
                          Role::starter, Role::device, Role::hypervisor}) {
    for (const Attempt& attempt : all) {
      std::printf("%s\t%s\t%s\n", name(role), attempt.name, outcome(role, attempt).c_str());
      std::fflush(stdout);
    }
  }
  return 0;
}
