/** The starter config.json that `tskata spec` writes: the same container as runc's, with the version we follow. */
import { OCI_VERSION } from "../base/version.ts";
import type { Mount, Namespace, Spec } from "./spec.ts";

export interface TemplateOptions {
  /** Adds a user namespace that maps the container's root to this user. */
  readonly rootless: boolean;
  readonly uid: number;
  readonly gid: number;
}

const CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const LOCKED = ["nosuid", "noexec", "nodev"];

const MOUNTS: readonly Mount[] = [
  { destination: "/proc", type: "proc", source: "proc" },
  { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
  { destination: "/dev/pts", type: "devpts", source: "devpts", options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
  { destination: "/dev/shm", type: "tmpfs", source: "shm", options: [...LOCKED, "mode=1777", "size=65536k"] },
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: LOCKED },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: [...LOCKED, "ro"] },
  { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: [...LOCKED, "relatime", "ro"] },
];

const MASKED = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/sys/firmware",
  "/proc/scsi",
];

const READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export function specTemplate(options: TemplateOptions): Spec {
  const namespaces: Namespace[] = [{ type: "pid" }, { type: "network" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }, { type: "cgroup" }];
  if (options.rootless) namespaces.push({ type: "user" });
  return {
    ociVersion: OCI_VERSION,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ["sh"],
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
      cwd: "/",
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "tskata",
    mounts: MOUNTS.map((mount) => (options.rootless ? withoutOwner(mount) : structuredClone(mount))),
    linux: {
      resources: { devices: [{ allow: false, access: "rwm" }] },
      namespaces,
      maskedPaths: MASKED,
      readonlyPaths: READ_ONLY,
      ...(options.rootless ? userMappings(options) : {}),
    },
  };
}

/** Only the root user is mapped: devpts can't give its terminals to another group. */
function withoutOwner({ options, ...mount }: Mount): Mount {
  return options === undefined ? mount : { ...mount, options: options.filter((option) => !/^[ug]id=/.test(option)) };
}

function userMappings({ uid, gid }: TemplateOptions): Pick<NonNullable<Spec["linux"]>, "uidMappings" | "gidMappings"> {
  return {
    uidMappings: [{ containerID: 0, hostID: uid, size: 1 }],
    gidMappings: [{ containerID: 0, hostID: gid, size: 1 }],
  };
}
