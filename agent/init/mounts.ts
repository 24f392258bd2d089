/** What PID 1 must mount before anything else can be: the kernel's filesystems, /dev, tmpfs where files are written, cgroup v2. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { totalmem } from "node:os";
import { CACHED as CACHED_FOLDER, GUEST_SHARED, LIVE as LIVE_FOLDER } from "../../src/base/shared-tree.ts";
import { native } from "../../src/native.ts";
import { log } from "../log.ts";

const NOSUID = 2;
const NODEV = 4;
const NOEXEC = 8;
const KERNEL = NOSUID | NODEV | NOEXEC;

/**
 * The image has these folders; /dev is devtmpfs, which the kernel mounts itself (CONFIG_DEVTMPFS_MOUNT). favordynmods: without it each process that
 * is moved to a container's cgroup waits for a grace period of RCU, two or three ticks of 10 ms, a good part of what an exec takes.
 */
const MOUNTS: readonly (readonly [source: string, target: string, type: string, flags: number, data: string])[] = [
  ["proc", "/proc", "proc", KERNEL, ""],
  ["sysfs", "/sys", "sysfs", KERNEL, ""],
  ["tmpfs", "/run", "tmpfs", NOSUID | NODEV, "mode=0755"],
  ["tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "mode=1777"],
  ["devpts", "/dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"],
  ["shm", "/dev/shm", "tmpfs", KERNEL, "mode=1777"],
  ["mqueue", "/dev/mqueue", "mqueue", KERNEL, ""],
  ["cgroup2", "/sys/fs/cgroup", "cgroup2", KERNEL, "nsdelegate,memory_recursiveprot,favordynmods"],
];

export function mountEarly(): void {
  for (const [source, target, type, flags, data] of MOUNTS) {
    if (target.startsWith("/dev/")) mkdirSync(target, { recursive: true });
    native().mount(source, target, type, flags, data);
  }
  mkdirSync("/run/tskata/copy-up", { recursive: true });
}

/** Where the folders of the shared tree are mounted. */
export const LIVE = `${GUEST_SHARED}/${LIVE_FOLDER}`;
export const CACHED = `${GUEST_SHARED}/${CACHED_FOLDER}`;

/**
 * How far ahead of a reader the kernel reads: as much as one request of the file server's can hold (native/devices/fs/server.cpp, max_write). A request
 * costs a way out of the machine and back, so the kernel's own 128 KiB would cost eight of them.
 */
const READ_AHEAD_KIB = 1024;

/** A folder of the pod's shared tree: virtio-fs. Devices in it are made harmless by each container's own filter, set-uid programs are wanted. */
export function mountShared(tag: string, target: string): void {
  mkdirSync(target, { recursive: true });
  native().mount(tag, target, "virtiofs", 0, "");
  writeFileSync(`/sys/class/bdi/${deviceOf(target)}/read_ahead_kb`, String(READ_AHEAD_KIB));
}

/** How long what was written may wait, and how often the kernel looks for what has waited: so the host has it after a second. */
const DIRTY_CENTISECS = 50;
/** Most that may wait, in large machines: what is lost if the machine dies, and what whoever waits for all of it waits for. */
const MOST_DIRTY_BYTES = 16 * 1024 * 1024;
const DIRTY_PART_OF_MACHINE = 16;
const DIRTY_PART_OF_CONTAINER = 4;

/**
 * One whose writes the guest keeps for a while (native/devices/fs/server.h). The kernel lets a FUSE filesystem have 1 % of what may wait, for a server
 * that might need memory of the same machine to take it: this one does not.
 */
export function mountCached(tag: string, target: string): void {
  mountShared(tag, target);
  for (const name of ["dirty_expire_centisecs", "dirty_writeback_centisecs"]) writeFileSync(`/proc/sys/vm/${name}`, String(DIRTY_CENTISECS));
  setMostDirty(Math.min(MOST_DIRTY_BYTES, Math.floor(totalmem() / DIRTY_PART_OF_MACHINE)));
  writeFileSync(`/sys/class/bdi/${deviceOf(target)}/max_ratio`, "100");
}

/**
 * For a cgroup of this memory limit. FUSE's pages are not written back cgroup by cgroup: the kernel lets a small one fill with pages that wait, finds nothing in it
 * to reclaim, and kills.
 */
export function boundDirty(memoryLimit: number): void {
  const most = Math.floor(memoryLimit / DIRTY_PART_OF_CONTAINER);
  if (isMounted(CACHED) && most < Number(readFileSync("/proc/sys/vm/dirty_bytes", "utf8"))) setMostDirty(most);
}

function setMostDirty(bytes: number): void {
  const page = 4096;
  writeFileSync("/proc/sys/vm/dirty_background_bytes", String(Math.max(2 * page, Math.floor(bytes / 4))));
  writeFileSync("/proc/sys/vm/dirty_bytes", String(Math.max(4 * page, bytes)));
}

/**
 * Brings what containers have written, and the kernel has kept so far, to the host: its memory, not its disks. What cannot be written is the processes'
 * to hear of, by their own close and fsync.
 */
export function writeBack(): void {
  if (!isMounted(CACHED)) return;
  try {
    native().syncfs(CACHED);
  } catch (error) {
    log("warn", "write back what containers have written", { error: String(error) });
  }
}

export function isMounted(path: string): boolean {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[1] === path);
}

/** "major:minor" of what is mounted there, as the kernel names its backing device. */
function deviceOf(target: string): string {
  const device = statSync(target).dev; // MAJOR and MINOR as makedev(3) has them, for numbers of a filesystem without a disk
  return `${Math.floor(device / 256) % 4096}:${(device % 256) + Math.floor(device / 2 ** 20) * 256}`;
}
