// The plan of one process: everything TypeScript has decided, flat. agent/container/plan.ts writes it, plan.cpp reads it.
//
// Integers are little-endian; a string is u32 length and bytes; a list is u32 count and items. Fields follow each other in the order
// below, after the magic "TSKP" and the version.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tskata::launcher {

constexpr uint32_t plan_version = 1;

// Bits of Plan::flags.
constexpr uint32_t flag_container = 1 << 0;    // a container's init: namespaces, root filesystem; else a process in one that runs
constexpr uint32_t flag_terminal = 1 << 1;     // open a pty in the container and use its slave as 0, 1, 2
constexpr uint32_t flag_no_pivot = 1 << 2;     // MS_MOVE and chroot instead of pivot_root
constexpr uint32_t flag_new_keyring = 1 << 3;  // join a new session keyring
constexpr uint32_t flag_no_new_privs = 1 << 4;
constexpr uint32_t flag_root_readonly = 1 << 5;

// Bits of Mount::options.
constexpr uint32_t mount_bind = 1 << 0;
constexpr uint32_t mount_recursive_bind = 1 << 1;
constexpr uint32_t mount_copy_up = 1 << 2;  // tmpfs that begins with what it covers
constexpr uint32_t mount_remount = 1 << 3;  // change what is mounted at the target already
constexpr uint32_t mount_cgroup = 1 << 4;   // the container's cgroup2

struct NamespaceJoin {
  uint32_t type;  // CLONE_NEW*
  std::string path;
};

struct Mount {
  std::string source;
  std::string target;  // in the container
  std::string type;
  std::string data;
  uint64_t flags;     // MS_* of mount(2) for filesystems
  uint64_t attr_set;  // MOUNT_ATTR_* for binds and remounts
  uint64_t attr_clear;
  uint64_t recursive_attr_set;
  uint64_t recursive_attr_clear;
  std::vector<uint64_t> propagation;  // MS_PRIVATE | MS_REC and the like, in order
  uint32_t options;
};

struct Device {
  std::string path;
  uint32_t mode;  // with S_IFCHR, S_IFBLK or S_IFIFO
  uint32_t major;
  uint32_t minor;
  uint32_t uid;
  uint32_t gid;
};

struct Rlimit {
  uint32_t resource;
  uint64_t soft;
  uint64_t hard;
};

struct Scheduler {
  bool present;
  uint32_t policy;
  int32_t nice;
  uint32_t priority;
  uint64_t flags;
  uint64_t runtime;
  uint64_t deadline;
  uint64_t period;
};

struct Capabilities {
  bool present;
  uint64_t bounding, effective, inheritable, permitted, ambient;
};

struct SeccompArgument {
  uint32_t index;
  uint32_t op;  // enum scmp_compare
  uint64_t value;
  uint64_t value_two;
};

struct SeccompRule {
  uint32_t action;
  std::vector<std::string> names;
  std::vector<SeccompArgument> arguments;
};

struct Seccomp {
  bool present;
  uint32_t default_action;
  uint32_t flags;  // SECCOMP_FILTER_FLAG_*
  std::vector<uint32_t> architectures;
  std::vector<SeccompRule> rules;
};

struct Hook {
  std::string path;
  std::vector<std::string> args;
  std::vector<std::string> env;
  uint32_t timeout_seconds;  // 0: none
};

struct Plan {
  uint32_t flags;
  uint32_t new_namespaces;             // CLONE_NEW*
  std::string cgroup;                  // folder in the guest
  uint32_t cgroup_of;                  // process whose own cgroup is joined instead when that is below `cgroup`; 0: none
  std::vector<uint32_t> initial_cpus;  // where to run until it is in the cgroup; empty: anywhere
  std::vector<uint32_t> final_cpus;    // and from then on
  std::vector<NamespaceJoin> joins;
  std::string uid_map;
  std::string gid_map;
  std::string time_offsets;
  std::string hostname;
  std::string domainname;
  std::string rootfs;
  uint64_t rootfs_propagation;
  std::vector<Mount> mounts;
  std::vector<Device> devices;
  std::vector<std::pair<std::string, std::string>> links;    // path in the container, target
  std::vector<std::pair<std::string, std::string>> sysctls;  // path below /proc/sys, value
  std::vector<std::string> masked_paths;
  std::vector<std::string> readonly_paths;
  uint32_t rows;
  uint32_t columns;
  std::vector<Rlimit> rlimits;
  int32_t oom_score_adj;  // INT32_MIN: leave
  int32_t io_priority;    // as ioprio_set(2) takes it; -1: leave
  Scheduler scheduler;
  int64_t personality;  // -1: leave
  int32_t umask;        // -1: leave
  uint32_t uid;
  uint32_t gid;
  std::vector<uint32_t> groups;
  Capabilities capabilities;
  std::string cwd;
  std::vector<std::string> args;
  std::vector<std::string> env;
  Seccomp seccomp;
  std::vector<Hook> start_hooks;
  std::string hook_state;

  bool has(uint32_t flag) const { return (flags & flag) != 0; }
};

// Throws StepError when the bytes are no plan.
Plan parse_plan(std::span<const std::byte> bytes);

}  // namespace tskata::launcher
