/**
 * The host cgroup of a container: it holds every process of the pod (sandbox, hypervisor, proxies), so that what reads a
 * container's use by its pid (docker stats, kubelet) finds it.
 *
 * The container's own limits bite inside the guest, in its cgroup v2. On cgroup v1 and hybrid hosts the same path is made
 * in every mounted hierarchy; on v2 hosts once. What is made is recorded and only that is removed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { TskataError } from "../base/errors.ts";
import { pauseSync } from "../base/pause.ts";
import { parseMounts } from "./mount-table.ts";

export interface Hierarchy {
  readonly mountPoint: string;
  readonly version: 1 | 2;
  /** v1: controllers or name= of the hierarchy. */
  readonly controllers: readonly string[];
}

export type CgroupMode = "v1" | "hybrid" | "v2" | "none";

/** Folders of one container's cgroup, and of those what was made for it. */
export interface HostCgroup {
  /** One a hierarchy. */
  readonly folders: readonly string[];
  /** Deepest first. */
  readonly made: readonly string[];
}

/** The mounted hierarchies out of /proc/self/mountinfo. */
export function hierarchies(mountinfo: string = readFileSync("/proc/self/mountinfo", "utf8")): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const { point: mountPoint, type, options } of parseMounts(mountinfo)) {
    if (type !== "cgroup" && type !== "cgroup2") continue;
    const controllers = options.filter((word) => word !== "rw" && word !== "ro");
    const hierarchy: Hierarchy = type === "cgroup2" ? { mountPoint, version: 2, controllers: [] } : { mountPoint, version: 1, controllers };
    if (!found.some((other) => other.mountPoint === mountPoint || isSame(other, hierarchy))) found.push(hierarchy);
  }
  return found;
}

/** One hierarchy can be mounted at several places. */
function isSame(one: Hierarchy, other: Hierarchy): boolean {
  return one.version === other.version && one.controllers.toSorted().join() === other.controllers.toSorted().join();
}

export function cgroupMode(mounted: readonly Hierarchy[]): CgroupMode {
  const v1 = mounted.some((hierarchy) => hierarchy.version === 1);
  const v2 = mounted.some((hierarchy) => hierarchy.version === 2);
  return v1 ? (v2 ? "hybrid" : "v1") : v2 ? "v2" : "none";
}

/**
 * Where below each hierarchy the container's cgroup is: linux.cgroupsPath, or /tskata/<id>. A relative path is below
 * /tskata (config-linux.md leaves that place to the runtime). With --systemd-cgroup: "slice:prefix:name".
 */
export function cgroupPath(cgroupsPath: string | undefined, id: string, systemd: boolean): string {
  if (systemd) return systemdPath(cgroupsPath ?? "", id);
  if (cgroupsPath === undefined || cgroupsPath === "") return `/tskata/${id}`;
  if (cgroupsPath.split("/").includes("..")) throw new TskataError("invalid", `linux.cgroupsPath: "${cgroupsPath}" has ".." in it`);
  if (/^[^/]*\.slice:[^:]*:[^:]*$/.test(cgroupsPath)) {
    throw new TskataError("invalid", `linux.cgroupsPath: "${cgroupsPath}" is for systemd: give --systemd-cgroup`);
  }
  const path = normalize(cgroupsPath.startsWith("/") ? cgroupsPath : `/tskata/${cgroupsPath}`).replace(/\/+$/, "");
  if (path === "") throw new TskataError("invalid", `linux.cgroupsPath: "${cgroupsPath}" is the root cgroup`);
  return path;
}

/** systemd.slice(5): "a-b.slice" lies in "a.slice"; the unit is "<prefix>-<name>.scope". An empty slice is system.slice. */
function systemdPath(cgroupsPath: string, id: string): string {
  const parts = cgroupsPath === "" ? ["", "tskata", id] : cgroupsPath.split(":");
  const [slice = "", prefix = "", name = ""] = parts;
  const bad = parts.length !== 3 || name === "" || cgroupsPath.includes("/") || /^\.|\.\./.test(name);
  if (bad) throw new TskataError("invalid", `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "${cgroupsPath}" instead`);
  const unit = name.endsWith(".slice") ? name : `${prefix === "" ? "" : `${prefix}-`}${name}.scope`;
  return `${slicePath(slice === "" ? "system.slice" : slice)}/${unit}`;
}

function slicePath(slice: string): string {
  if (slice === "-.slice") return "";
  if (!slice.endsWith(".slice") || slice.startsWith("-") || slice.includes("--")) throw new TskataError("invalid", `invalid slice name: "${slice}"`);
  const words = slice.slice(0, -".slice".length);
  if (words === "") return "";
  const parts = words.split("-");
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join("-")}.slice`).join("");
}

/** What `createCgroup` is going to make, deepest first, to be written down before: a crash in between leaves no trace otherwise. */
export function planCgroup(
  path: string,
  mounted: readonly Hierarchy[] = hierarchies(),
): { readonly folders: readonly string[]; readonly missing: readonly string[] } {
  const folders = mounted.map(({ mountPoint }) => join(mountPoint, path));
  const missing = mounted.flatMap(({ mountPoint }) => pathBelow(mountPoint, join(mountPoint, path))).filter((folder) => !existsSync(folder));
  return { folders, missing };
}

/** The folder and its parents below the mount, deepest first. */
function pathBelow(mountPoint: string, folder: string): string[] {
  return folder === mountPoint ? [] : [folder, ...pathBelow(mountPoint, dirname(folder))];
}

/** Makes the cgroup in every hierarchy. On failure nothing of it is left. */
export function createCgroup(path: string, mounted: readonly Hierarchy[] = hierarchies()): HostCgroup {
  const made: string[] = [];
  const folders: string[] = [];
  try {
    for (const hierarchy of mounted) {
      const folder = join(hierarchy.mountPoint, path);
      made.unshift(...makeFolders(hierarchy, folder));
      folders.push(folder);
    }
  } catch (error) {
    removeCgroup(made);
    throw new TskataError("unavailable", `create the cgroup ${path}`, { cause: error });
  }
  return { folders, made };
}

/** Makes a folder and its parents below the hierarchy's mount; those that were missing, deepest first. */
function makeFolders(hierarchy: Hierarchy, folder: string): string[] {
  const made: string[] = [];
  for (const at of pathBelow(hierarchy.mountPoint, folder).toReversed()) {
    if (hierarchy.version === 2) enableControllers(dirname(at));
    if (makeFolder(at)) made.unshift(at);
    if (hierarchy.controllers.includes("cpuset")) inheritCpuset(at);
  }
  return made;
}

/** False when it was there. A parent may vanish between two calls: an emptied one is removed by another container's end. */
function makeFolder(folder: string): boolean {
  try {
    mkdirSync(folder, { mode: 0o755 });
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    if (code !== "ENOENT") throw error;
    makeFolder(dirname(folder));
    return makeFolder(folder);
  }
}

/** v2: a child has only the controllers its parent hands on. A parent with processes of its own can't; then it goes without. */
function enableControllers(parent: string): void {
  try {
    const controllers = readFileSync(join(parent, "cgroup.controllers"), "utf8").trim();
    if (controllers === "") return;
    const wanted = controllers.split(" ").map((name) => `+${name}`);
    writeFileSync(join(parent, "cgroup.subtree_control"), wanted.join(" "));
  } catch {
    // Accounting per controller is then the parent's; the container's limits are in the guest and do not depend on it.
  }
}

/** v1: no process may join a cpuset without cpus and mems, and a new one has neither (cpusets(7)). */
function inheritCpuset(folder: string): void {
  for (const name of ["cpuset.cpus", "cpuset.mems"]) {
    const file = join(folder, name);
    if (readFileSync(file, "utf8").trim() === "") writeFileSync(file, readFileSync(join(dirname(folder), name), "utf8").trim());
  }
}

/** Moves a process in; a thread group moves whole. The first move may wait for a grace period of RCU, some 15 ms in which its caller has other things to do. */
export async function joinCgroup(folders: readonly string[], pid: number): Promise<void> {
  for (const folder of folders) {
    try {
      await writeFile(join(folder, "cgroup.procs"), String(pid));
    } catch (error) {
      throw new TskataError("unavailable", `move process ${pid} to the cgroup ${folder}`, { cause: error });
    }
  }
}

/** Pids in any of the folders. */
export function cgroupMembers(folders: readonly string[]): number[] {
  const pids = new Set<number>();
  for (const folder of folders) {
    try {
      for (const line of readFileSync(join(folder, "cgroup.procs"), "utf8").split("\n")) if (line !== "") pids.add(Number(line));
    } catch {
      // Removed already.
    }
  }
  return [...pids];
}

const BUSY_MS = 3000;
const BUSY_PAUSE_MS = 10;

/**
 * Removes what was made, as far as it is empty: plain rmdir only, because a parent may have become another container's
 * too. Gives the folders that still hold processes.
 */
export function removeCgroup(made: readonly string[]): string[] {
  const end = performance.now() + BUSY_MS;
  return made.filter((folder) => !removeFolder(folder, end));
}

/** The threads of a killed process leave its cgroup a little after it shows as a zombie: a machine's memory takes its time to be freed. */
function removeFolder(folder: string, end: number): boolean {
  for (;;) {
    try {
      rmdirSync(folder);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return true;
      if (code !== "EBUSY" || hasChildren(folder) || performance.now() >= end) return cgroupMembers([folder]).length === 0;
      pauseSync(BUSY_PAUSE_MS);
    }
  }
}

function hasChildren(folder: string): boolean {
  try {
    return readdirSync(folder, { withFileTypes: true }).some((entry) => entry.isDirectory());
  } catch {
    return false; // gone meanwhile
  }
}
