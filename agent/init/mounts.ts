/** What PID 1 must mount before anything else can be: the kernel's filesystems, /dev, tmpfs where files are written, cgroup v2. */
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { native } from "../../src/native.ts";

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

/**
 * How far ahead of a reader the kernel reads: as much as one request of the file server's can hold (native/devices/fs/server.cpp, max_write). A request
 * costs a way out of the machine and back, so the kernel's own 128 KiB would cost eight of them.
 */
const READ_AHEAD_KIB = 1024;

/** The pod's shared tree: virtio-fs. Devices in it are made harmless by each container's own filter, set-uid programs are wanted. */
export function mountShared(tag: string, target: string): void {
  mkdirSync(target, { recursive: true });
  native().mount(tag, target, "virtiofs", 0, "");
  writeFileSync(`/sys/class/bdi/${deviceOf(target)}/read_ahead_kb`, String(READ_AHEAD_KIB));
}

/** "major:minor" of what is mounted there, as the kernel names its backing device. */
function deviceOf(target: string): string {
  const device = statSync(target).dev; // MAJOR and MINOR as makedev(3) has them, for numbers of a filesystem without a disk
  return `${Math.floor(device / 256) % 4096}:${(device % 256) + Math.floor(device / 2 ** 20) * 256}`;
}
