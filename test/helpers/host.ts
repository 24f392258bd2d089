/**
 * What stands on the host, before and after: the difference is what a pod has left behind.
 *
 * Others use the host at the same time, so of processes and what they hold only those count that show a mark of this test's own: its
 * folder, or the built product it runs. The rest (mounts, cgroups, links, IPC objects, names in /run, /dev/shm and /tmp) is compared whole,
 * with a pattern for names where others may make some, too.
 */
import { existsSync, globSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { cgroupName } from "../../src/base/paths.ts";
import { hierarchies } from "../../src/host/cgroup.ts";

export interface HostMarks {
  /** Whatever names it is this test's. */
  readonly folder: string;
  /** --root of its commands. */
  readonly root: string;
  /** dist of the product: who runs an executable below it, and did not before, is ours. */
  readonly dist: string;
}

/** Source of the tmpfs mounts that tests make themselves. */
export const TEST_DISK = "tskata-test-disk";

/**
 * What the product and QEMU could call a file of theirs; `tskata-…` are the folders of tests, fuzzers and testbeds that run beside. Node's cache of
 * compiled code is not looked for: whatever else runs on the host's node makes it at any time.
 */
const PRODUCTS = /^\.?(tskata(?!-)|qemu)/;

/** By a name that says what it is. */
export type HostState = ReadonlySet<string>;

export function hostState(marks: HostMarks): HostState {
  const { folder, root } = marks;
  return new Set([
    ...processes(marks),
    ...mounts(folder),
    ...cgroups(folder, root),
    ...named("network link", "/sys/class/net"),
    ...named("network namespace", "/run/netns"),
    ...sockets(folder),
    ...named("state", root),
    ...named("name in /run", "/run", /tskata(?!-kvm-probe)/), // that one is kept until the next boot
    ...named("name in /run/tskata", "/run/tskata"),
    ...named("name in /dev/shm", "/dev/shm", PRODUCTS),
    ...named("name in /tmp", "/tmp", PRODUCTS),
    ...loopDevices(folder),
    ...ipcObjects(),
  ]);
}

/** What is there now and was not before. */
export function hostDifference(before: HostState, after: HostState): string[] {
  return [...after].filter((one) => !before.has(one));
}

// -- processes: with them go their memory, memfds, namespaces, inotify watches and locks ------------------------------------------------

function processes({ folder, dist }: HostMarks): string[] {
  return pids().flatMap((pid) => {
    if (pid === process.pid) return [];
    const command = readOrEmpty(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim();
    if (state(pid) === "Z" || isOwnShell(pid, command)) return [];
    const why = markOf(pid, folder, dist, command);
    return why === undefined ? [] : [`process ${pid} (${startTime(pid)}): ${command.slice(0, 200)}, ${why}`];
  });
}

/** A child of this test's that is about to become the command in its arguments. Any other shell may be a hook's script that was left. */
function isOwnShell(pid: number, command: string): boolean {
  return command.startsWith("/bin/sh") && parent(pid) === process.pid;
}

function markOf(pid: number, folder: string, dist: string, command: string): string | undefined {
  const exe = linkOrEmpty(`/proc/${pid}/exe`);
  // The tests themselves run on dist's node, which is a link to the pinned one.
  if (exe.startsWith(join(dist, "lib/tskata"))) return `runs ${basename(exe)}`;
  if (command.includes(folder) || readOrEmpty(`/proc/${pid}/environ`).includes(folder)) return "is told the folder";
  for (const name of ["cwd", "root"]) if (linkOrEmpty(`/proc/${pid}/${name}`).startsWith(folder)) return `has it as its ${name}`;
  const held = descriptors(pid).find((target) => target.startsWith(folder));
  if (held !== undefined) return `holds ${held}`;
  // What stands in our own namespace, too, or is a test's disk, others have taken over as they left that namespace.
  const foreign = readOrEmpty(`/proc/${pid}/mountinfo`)
    .split("\n")
    .some((line) => isMountIn(folder, line));
  return foreign && !readOrEmpty("/proc/self/mountinfo").includes(folder) ? "has it in its mount namespace" : undefined;
}

function pids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function state(pid: number): string {
  return statFields(pid)[0] ?? "Z";
}

function parent(pid: number): number {
  return Number(statFields(pid)[1]);
}

function startTime(pid: number): string {
  return statFields(pid)[19] ?? "";
}

function statFields(pid: number): string[] {
  const stat = readOrEmpty(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

function descriptors(pid: number): string[] {
  return entries(`/proc/${pid}/fd`).map((fd) => linkOrEmpty(`/proc/${pid}/fd/${fd}`));
}

// -- what outlives processes ----------------------------------------------------------------------------------------------------------

function mounts(folder: string): string[] {
  const lines = readOrEmpty("/proc/self/mountinfo").split("\n");
  // A bind mount of a namespace's file keeps the namespace.
  const left = lines.filter((line) => isMountIn(folder, line) || line.includes(" - nsfs "));
  return left.map((line) => `mount ${line}`);
}

function isMountIn(folder: string, line: string): boolean {
  return line.includes(folder) && !line.includes(` ${TEST_DISK} `);
}

function cgroups(folder: string, root: string): string[] {
  const own = [cgroupName(root, ""), basename(folder)];
  return hierarchies().flatMap(({ mountPoint }) =>
    globSync(["*", "*/*", "*/*/*"], { cwd: mountPoint, withFileTypes: true })
      .filter((entry) => entry.isDirectory() && (own.some((mark) => entry.name.startsWith(mark)) || own.some((mark) => entry.parentPath.includes(mark))))
      .map((entry) => `cgroup ${join(entry.parentPath, entry.name)}`),
  );
}

function sockets(folder: string): string[] {
  const paths = readOrEmpty("/proc/net/unix")
    .split("\n")
    .map((line) => line.split(/\s+/)[7] ?? "");
  return paths.filter((path) => path.includes(folder)).map((path) => `socket ${path}`);
}

function loopDevices(folder: string): string[] {
  return globSync("/sys/block/loop*/loop/backing_file").flatMap((file) => {
    const backing = readOrEmpty(file).trim();
    return backing.includes(folder) ? [`loop device ${file.split("/")[3]}: ${backing}`] : [];
  });
}

function ipcObjects(): string[] {
  return ["msg", "sem", "shm"].flatMap((kind) =>
    readOrEmpty(`/proc/sysvipc/${kind}`)
      .split("\n")
      .slice(1)
      .filter((line) => line !== "")
      .map((line) => `System V ${kind} ${line.trim().split(/\s+/).slice(0, 2).join(" ")}`),
  );
}

function named(what: string, folder: string, pattern = /./): string[] {
  return entries(folder)
    .filter((name) => pattern.test(name))
    .map((name) => `${what} ${name}`);
}

function entries(folder: string): string[] {
  try {
    return existsSync(folder) ? readdirSync(folder) : [];
  } catch {
    return []; // a process that has gone meanwhile
  }
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // gone meanwhile
  }
}

function linkOrEmpty(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return "";
  }
}
