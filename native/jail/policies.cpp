// The system calls of each role. What is not here kills: a list is added to only with the reason beside it.
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include <algorithm>
#include <array>

#include "jail/jail.h"
#include "linux/io_ring.h"

namespace tskata::jail {

namespace {

constexpr Condition is(int argument, uint64_t value) { return {argument, ~uint64_t{0}, value}; }
constexpr Condition without(int argument, uint64_t bits) { return {argument, bits, 0}; }

// Clone's namespace flags: a thread shares everything, or is none.
constexpr uint64_t new_namespaces = 0x7e02'0080;  // CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
constexpr Condition a_thread{0, CLONE_THREAD | CLONE_VM | new_namespaces, CLONE_THREAD | CLONE_VM};

// Every ioctl of /dev/kvm and its descriptors has this type (_IO(KVMIO, …)).
constexpr Condition of_kvm{1, 0xff00, static_cast<uint64_t>(KVMIO) << 8};

constexpr Rule refuse(uint32_t number) { return {number, {}, Verdict::refuse}; }
constexpr Rule violate(uint32_t number) { return {number, {}, Verdict::violate}; }
constexpr Rule no_code(uint32_t number) { return {number, without(2, PROT_EXEC)}; }

template <size_t A, size_t B>
constexpr std::array<Rule, A + B> joined(const std::array<Rule, A>& one, const std::array<Rule, B>& other) {
  std::array<Rule, A + B> out{};
  std::ranges::copy(other, std::ranges::copy(one, out.begin()).out);
  return out;
}

// What any thread does: its memory, its locks, its clock, its end, descriptors it has.
constexpr auto every = std::to_array<Rule>({
    {SYS_read},
    {SYS_write},
    {SYS_readv},
    {SYS_writev},
    {SYS_close},
    {SYS_futex},
    {SYS_ppoll},
#ifdef SYS_poll
    {SYS_poll},
#endif
    // malloc and stacks; no new code
    no_code(SYS_mmap),
    no_code(SYS_mprotect),
    {SYS_munmap},
    {SYS_mremap},
    {SYS_madvise},
    {SYS_brk},
    {SYS_prctl, is(0, PR_SET_NAME)},
    {SYS_prctl, is(0, PR_GET_NAME)},  // what tells of a violation
    {SYS_prctl, is(0, PR_SET_VMA)},
    // clocks where the vDSO has none, pauses of locks and retries
    {SYS_clock_gettime},
    {SYS_clock_nanosleep},
    {SYS_nanosleep},
    {SYS_sched_yield},
    {SYS_restart_syscall},
    {SYS_getrandom},
    // a thread's own start and end, and a signal's
    {SYS_gettid},
    {SYS_getpid},
    {SYS_rseq},
    {SYS_set_robust_list},
    {SYS_sigaltstack},
    {SYS_rt_sigprocmask},
    {SYS_rt_sigreturn},
    {SYS_exit},
    {SYS_exit_group},
    // abort(): to this process alone, which is 1 in its pid namespace
    {SYS_tgkill, is(0, 1)},
    // narrowing what was inherited; a filter can only take away
    {SYS_seccomp, is(0, SECCOMP_SET_MODE_FILTER)},
});

// JavaScript: V8 makes code, libuv waits and keeps files of the pod's folder and unix sockets, a pool of threads works for both.
constexpr auto node = std::to_array<Rule>({
    // V8: code pages, their protection, heap pages given back
    {SYS_mmap},
    {SYS_mprotect},
    {SYS_pkey_mprotect},
    {SYS_pkey_alloc},
    {SYS_membarrier},
    {SYS_mincore},
    {SYS_getcpu},
    {SYS_getrusage},
    {SYS_sched_getaffinity},
    {SYS_sched_getparam},
    {SYS_sched_getscheduler},
    {SYS_get_mempolicy},
    {SYS_sysinfo},
    {SYS_uname},
    {SYS_getrlimit},
    {SYS_prlimit64, is(2, 0)},  // reads only
    {SYS_gettimeofday},
    {SYS_clock_getres},
    {SYS_getcwd},
    {SYS_getppid},
    {SYS_getuid},
    {SYS_geteuid},
    {SYS_getgid},
    {SYS_getegid},
    {SYS_capget},  // node asks whether its environment can be trusted
    // threads; clone3's flags are in memory where no filter sees them, so glibc takes clone
    {SYS_clone, a_thread},
    refuse(SYS_clone3),
    {SYS_set_tid_address},
    {SYS_rt_sigaction},
    // libuv's loop
    {SYS_epoll_create1},
    {SYS_epoll_ctl},
    {SYS_epoll_pwait},
    {SYS_epoll_pwait2},
#ifdef SYS_epoll_wait
    {SYS_epoll_wait},
#endif
    {SYS_eventfd2},
    {SYS_pipe2},
    {SYS_dup},
    {SYS_dup3},
#ifdef SYS_dup2
    {SYS_dup2},
#endif
    {SYS_fcntl, is(1, F_DUPFD_CLOEXEC)},
    {SYS_fcntl, is(1, F_GETFD)},
    {SYS_fcntl, is(1, F_SETFD)},
    {SYS_fcntl, is(1, F_GETFL)},
    {SYS_fcntl, is(1, F_SETFL)},
    {SYS_ioctl, is(1, FIONBIO)},
    {SYS_ioctl, is(1, FIOCLEX)},
    {SYS_ioctl, is(1, TCGETS)},
    {SYS_ioctl, is(1, TIOCGWINSZ)},
    {SYS_ioctl, of_kvm},
    refuse(SYS_io_uring_setup),
    // unix sockets: control, handoff, the vsock device's
    {SYS_socket, is(0, AF_UNIX)},
    {SYS_socketpair, is(0, AF_UNIX)},
    {SYS_bind},
    {SYS_listen},
    {SYS_accept4},
    {SYS_connect},
    {SYS_shutdown},
    {SYS_sendto},
    {SYS_sendmsg},
    {SYS_recvfrom},
    {SYS_recvmsg},
    {SYS_getsockname},
    {SYS_getpeername},
    {SYS_getsockopt},
    {SYS_setsockopt},
    // files of the pod's folder: logs, exit files, spans
    {SYS_openat},
    {SYS_readlinkat},
    {SYS_newfstatat},
    {SYS_fstat},
    {SYS_statx},
    {SYS_faccessat},
    {SYS_faccessat2},
    {SYS_lseek},
    {SYS_pread64},
    {SYS_pwrite64},
    {SYS_preadv},
    {SYS_pwritev},
    {SYS_ftruncate},
    {SYS_fsync},
    {SYS_fdatasync},
    {SYS_fchmod},
    {SYS_fchmodat},
    {SYS_unlinkat},
    {SYS_mkdirat},
    {SYS_renameat2},
    {SYS_getdents64},
    {SYS_umask},
#ifdef SYS_open
    {SYS_open},
    {SYS_stat},
    {SYS_lstat},
    {SYS_access},
    {SYS_readlink},
    {SYS_unlink},
    {SYS_rmdir},
    {SYS_mkdir},
    {SYS_rename},
    {SYS_chmod},
    {SYS_renameat},
#endif
    // the hypervisor's end: killed by its pid, waited for
    {SYS_kill, is(1, SIGKILL)},
    {SYS_kill, is(1, 0)},
    {SYS_wait4},
    {SYS_waitid},
});

// Files below the shared tree, for any uid of the guest.
constexpr auto fs_worker = std::to_array<Rule>({
    {SYS_epoll_pwait},
#ifdef SYS_epoll_wait
    {SYS_epoll_wait},
#endif
    {SYS_setfsuid},
    {SYS_setfsgid},
    {SYS_umask},
    {SYS_openat},
    {SYS_openat2},
    {SYS_statx},
    {SYS_newfstatat},
    {SYS_fstat},
    {SYS_statfs},
    {SYS_fstatfs},
    {SYS_readlinkat},
    {SYS_getdents64},
    {SYS_lseek},
    {SYS_pread64},
    {SYS_pwrite64},
    {SYS_preadv},
    {SYS_pwritev},
    {SYS_preadv2},
    {SYS_pwritev2},
    {SYS_fcntl, is(1, F_OFD_SETLK)},  // overlayfs: which names are one file
    {SYS_fcntl, is(1, F_OFD_GETLK)},
    {SYS_ftruncate},
    {SYS_fallocate},
    {SYS_fsync},
    {SYS_fdatasync},
    {SYS_syncfs},
    {SYS_copy_file_range},
    {SYS_fchownat},
    {SYS_fchmod},
    {SYS_fchmodat},
#ifdef SYS_chmod
    {SYS_chmod},
#endif
    {SYS_utimensat},
    {SYS_mknodat},
    {SYS_mkdirat},
    {SYS_symlinkat},
    {SYS_linkat},
    {SYS_unlinkat},
    {SYS_renameat2},
    {SYS_setxattr},
    {SYS_getxattr},
    {SYS_listxattr},
    {SYS_removexattr},
    // the keeper of its handles
    {SYS_sendmsg},
    {SYS_recvmsg},
    // the host's changes to volumes; by a handle alone nothing is opened
    {SYS_inotify_add_watch},
    {SYS_inotify_rm_watch},
    {SYS_fanotify_mark},
    {SYS_name_to_handle_at},
});

// Handles of files that the file server had open (keeper/protocol.h): the only list with open_by_handle_at.
constexpr auto keeper = std::to_array<Rule>({
    {SYS_ppoll},
#ifdef SYS_poll
    {SYS_poll},
#endif
    {SYS_recvmsg},
    {SYS_sendmsg},
    {SYS_name_to_handle_at},
    {SYS_open_by_handle_at},
    {SYS_fstat},
    {SYS_newfstatat},
});

// Connections of the guest to sockets of the pod's folder and back.
constexpr auto vsock = std::to_array<Rule>({
    {SYS_epoll_pwait},
    {SYS_epoll_ctl},
#ifdef SYS_epoll_wait
    {SYS_epoll_wait},
#endif
    {SYS_socket, is(0, AF_UNIX)},
    {SYS_connect},
    {SYS_accept4},
    {SYS_shutdown},
    {SYS_sendto},
    {SYS_sendmsg},
    {SYS_recvfrom},
    {SYS_fcntl, is(1, F_GETFL)},
    {SYS_fcntl, is(1, F_SETFL)},
    {SYS_openat, without(2, O_WRONLY | O_RDWR | O_CREAT)},  // a long socket path is reached by its folder
    {SYS_unlinkat},
#ifdef SYS_unlink
    {SYS_unlink},
#endif
});

// Guest memory and eventfds from QEMU; a device's queue may start a thread.
constexpr auto vhost_user = std::to_array<Rule>({
    {SYS_accept4},
    {SYS_recvmsg},
    {SYS_sendmsg},
    {SYS_sendto},
    {SYS_fstat},
    {SYS_newfstatat},
    {SYS_readlinkat},
    {SYS_fcntl, is(1, F_GETFL)},
    {SYS_fcntl, is(1, F_SETFL)},
    {SYS_eventfd2},
    {SYS_epoll_create1},
    {SYS_epoll_ctl},
    {SYS_clone, a_thread},
    refuse(SYS_clone3),
    {SYS_unlinkat},
#ifdef SYS_unlink
    {SYS_unlink},
    {SYS_readlink},
#endif
});

constexpr auto descriptors = std::to_array<Rule>({
    {SYS_accept4},
    {SYS_recvmsg},
    {SYS_sendmsg},
    {SYS_unlinkat},
#ifdef SYS_unlink
    {SYS_unlink},
#endif
});

constexpr auto relay = std::to_array<Rule>({
    {SYS_recvfrom},
    {SYS_sendto},
    {SYS_shutdown},
});

constexpr auto device = std::to_array<Rule>({
    {SYS_epoll_pwait},
    {SYS_epoll_ctl},
#ifdef SYS_epoll_wait
    {SYS_epoll_wait},
#endif
    {SYS_preadv},
    {SYS_pwritev},
    {SYS_preadv2},
    {SYS_pwritev2},
    {SYS_fallocate},
    {SYS_fdatasync},
    // a disk's ring, which takes the calls above on its one file and nothing else (linux/io_ring.h): handing over, no flags
    {SYS_io_uring_enter, is(3, 0)},
    {SYS_recvmsg},
    {SYS_sendmsg},
    {SYS_recvfrom},
    {SYS_sendto},
    // the console's log
    {SYS_pread64},
    {SYS_pwrite64},
    {SYS_ftruncate},
});

// KVM_RUN, and nothing for the accesses that it answers: a device's registers are memory, its threads are made by the starter.
constexpr auto vcpu = std::to_array<Rule>({
    {SYS_ioctl, of_kvm},
});

// What a queue's start does. The threads that it makes inherit this list, so it holds a device's, too.
constexpr auto starter_own = std::to_array<Rule>({
    {SYS_eventfd2},
    {SYS_epoll_create1},
    {SYS_clone, a_thread},
    refuse(SYS_clone3),
});
constexpr auto starter = joined(starter_own, device);

// QEMU has a filter of its own (-sandbox), which differs from version to version and lets pass what it does not name. These calls no
// version needs; execve is here for the one that starts it, its own filter forbids more.
constexpr auto hypervisor = std::to_array<Rule>({
    violate(SYS_ptrace),
    violate(SYS_process_vm_readv),
    violate(SYS_process_vm_writev),
    violate(SYS_kcmp),
    violate(SYS_pidfd_getfd),
    violate(SYS_bpf),
    violate(SYS_perf_event_open),
    violate(SYS_userfaultfd),
    violate(SYS_add_key),
    violate(SYS_request_key),
    violate(SYS_keyctl),
    violate(SYS_mount),
    violate(SYS_umount2),
    violate(SYS_pivot_root),
    violate(SYS_chroot),
    violate(SYS_open_tree),
    violate(SYS_move_mount),
    violate(SYS_fsopen),
    violate(SYS_fsconfig),
    violate(SYS_fsmount),
    violate(SYS_mount_setattr),
    violate(SYS_unshare),
    violate(SYS_setns),
    violate(SYS_open_by_handle_at),
    violate(SYS_name_to_handle_at),
    violate(SYS_init_module),
    violate(SYS_finit_module),
    violate(SYS_delete_module),
    violate(SYS_kexec_load),
    violate(SYS_reboot),
    violate(SYS_syslog),
    violate(SYS_mknodat),
    violate(SYS_acct),
    violate(SYS_quotactl),
    violate(SYS_kill),
    refuse(SYS_io_uring_setup),
    {SYS_socket, is(0, AF_UNIX)},
    violate(SYS_socket),
    // Threads, and no namespace of their own.
    {SYS_clone, without(0, new_namespaces)},
    violate(SYS_clone),
    refuse(SYS_clone3),
});

// libuv makes rings of its own as soon as it starts, with which it could do anything past every list; devices make theirs, which are bound.
// The filter sees no more of a ring than its size, so that tells them apart: nothing of a guest's runs yet.
constexpr auto starting = std::to_array<Rule>({
    {SYS_io_uring_setup, is(0, os::IoRing::asked_entries)},
    refuse(SYS_io_uring_setup),
});

}  // namespace

const char* name(Role role) {
  switch (role) {
    case Role::node: return "node";
    case Role::fs_worker: return "fs";
    case Role::keeper: return "handles";
    case Role::vsock: return "vsock";
    case Role::vhost_user: return "vhost-user";
    case Role::descriptors: return "descriptors";
    case Role::relay: return "relay";
    case Role::vcpu: return "vcpu";
    case Role::starter: return "starter";
    case Role::device: return "device";
    case Role::hypervisor: return "hypervisor";
    case Role::starting: return "starting";
  }
  return "";
}

Policy policy(Role role) {
  switch (role) {
    case Role::node: return {node, every};
    case Role::fs_worker: return {fs_worker, every};
    case Role::keeper: return {keeper, every};
    case Role::vsock: return {vsock, every};
    case Role::vhost_user: return {vhost_user, every};
    case Role::descriptors: return {descriptors, every};
    case Role::relay: return {relay, every};
    case Role::vcpu: return {vcpu, every};
    case Role::starter: return {starter, every};
    case Role::device: return {device, every};
    case Role::hypervisor: return {hypervisor, {}, Verdict::allow};
    case Role::starting: return {starting, {}, Verdict::allow};
  }
  return {};
}

}  // namespace tskata::jail
