/**
 * The features document (runtime-spec features.md): what this build recognises, whatever the host.
 *
 * Mount options and capabilities are the guest launcher's and a unit test compares them with its sources.
 */
import { OCI_VERSION, TSKATA_VERSION } from "../base/version.ts";
import { IGNORED, refusedPaths } from "./refusals.ts";

const HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/** Flags; each but the last three groups also in its recursive form, "r" before it. */
const RECURSIVE_OPTIONS =
  "atime dev diratime exec noatime nodev nodiratime noexec norelatime nostrictatime nosuid nosymfollow relatime ro rw strictatime suid symfollow".split(" ");
const PLAIN_OPTIONS =
  "acl async bind defaults dirsync iversion lazytime loud mand noacl noiversion nolazytime nomand rbind remount silent sync tmpcopyup".split(" ");
const PROPAGATION = "private rprivate shared rshared slave rslave unbindable runbindable".split(" ");

const NAMESPACES = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const CAPABILITIES = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`
  .split(/\s+/)
  .map((name) => `CAP_${name}`);

const SECCOMP_ACTIONS = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP"].map((name) => `SCMP_ACT_${name}`);
const SECCOMP_OPERATORS = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"].map((name) => `SCMP_CMP_${name}`);
const SECCOMP_ARCHS = ["X32", "X86", "X86_64"].map((name) => `SCMP_ARCH_${name}`);
const SECCOMP_FLAGS = ["TSYNC", "SPEC_ALLOW", "LOG"].map((name) => `SECCOMP_FILTER_FLAG_${name}`);

export function mountOptions(): string[] {
  return [...PLAIN_OPTIONS, ...RECURSIVE_OPTIONS, ...RECURSIVE_OPTIONS.map((option) => `r${option}`), ...PROPAGATION].sort();
}

/** By number, as in linux/capability.h. */
export function capabilities(): readonly string[] {
  return CAPABILITIES;
}

export function features(): object {
  return {
    ociVersionMin: "1.0.0",
    ociVersionMax: OCI_VERSION,
    hooks: HOOKS,
    mountOptions: mountOptions(),
    linux: {
      namespaces: NAMESPACES,
      capabilities: CAPABILITIES,
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: false, rdma: false },
      seccomp: {
        enabled: true,
        actions: SECCOMP_ACTIONS,
        operators: SECCOMP_OPERATORS,
        archs: SECCOMP_ARCHS,
        knownFlags: SECCOMP_FLAGS,
        supportedFlags: SECCOMP_FLAGS,
      },
      apparmor: { enabled: false },
      selinux: { enabled: false },
      intelRdt: { enabled: false },
      mountExtensions: { idmap: { enabled: false } },
    },
    annotations: {
      "io.tskata.version": TSKATA_VERSION,
      "io.tskata.config.refused": refusedPaths().join(" "),
      "io.tskata.config.ignored": IGNORED.map(({ path }) => path).join(" "),
    },
    potentiallyUnsafeConfigAnnotations: ["io.tskata."],
  };
}
