/**
 * A container's cgroup v2 in the guest:
 *
 *   /sys/fs/cgroup/init        the agent
 *   /sys/fs/cgroup/tskata/<id> a container: its processes and what it makes below
 */
import { closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync, watch, writeFileSync, writeSync } from "node:fs";
import { join, relative } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { TskataError } from "../../src/base/errors.ts";
import { native } from "../../src/native.ts";
import type { Resources } from "../../src/oci/spec.ts";
import { boundDirty } from "../init/mounts.ts";
import { deviceProgram } from "./device-filter.ts";
import { cgroupWrites } from "./resources.ts";

const MOUNT_POINT = "/sys/fs/cgroup";
const CONTAINERS = join(MOUNT_POINT, "tskata");
const RETRIES = 200;
const RETRY_MS = 10;

/** Makes room for containers: the agent leaves the root, which then may hand its controllers on. */
export function prepareCgroups(): void {
  mkdirSync(join(MOUNT_POINT, "init"), { recursive: true });
  writeFileSync(join(MOUNT_POINT, "init", "cgroup.procs"), "0");
  mkdirSync(CONTAINERS, { recursive: true });
  for (const folder of [MOUNT_POINT, CONTAINERS]) enableAll(folder);
}

function enableAll(folder: string): void {
  const controllers = readFileSync(join(folder, "cgroup.controllers"), "utf8").trim().split(" ");
  for (const controller of controllers) {
    try {
      writeFileSync(join(folder, "cgroup.subtree_control"), `+${controller}`);
    } catch {
      // One that this kernel ties to other conditions (cpu with real-time groups) is then not limited; a limit asked for fails by name.
    }
  }
}

export class Cgroup {
  readonly folder: string;

  constructor(id: string) {
    this.folder = join(CONTAINERS, id);
  }

  create(resources: Resources | undefined): void {
    mkdirSync(this.folder);
    this.apply(resources ?? {});
    native().setDeviceFilter(this.folder, deviceProgram(resources?.devices ?? []));
  }

  /** Changes what `resources` names and leaves the rest. */
  apply(resources: Resources): void {
    if (resources.memory?.checkBeforeUpdate === true) this.#checkMemory(resources.memory.limit);
    for (const { file, value } of cgroupWrites(resources)) this.#write(file, value);
    const { limit = 0 } = resources.memory ?? {};
    if (limit > 0) boundDirty(limit);
  }

  update(resources: Resources): void {
    this.apply(resources);
    if (resources.devices !== undefined) native().setDeviceFilter(this.folder, deviceProgram(resources.devices));
  }

  #write(file: string, value: string): void {
    try {
      writeExisting(join(this.folder, file), value);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const why = code === "ENOENT" ? "the guest kernel has no such file" : code;
      throw new TskataError("limit", `set cgroup ${file} to "${value}": ${why}`);
    }
  }

  #checkMemory(limit: number | undefined): void {
    if (limit === undefined || limit <= 0) return;
    const usage = this.number("memory.current");
    if (usage > limit) throw new TskataError("limit", `rejecting memory limit ${limit} as usage is ${usage}`);
  }

  read(file: string): string {
    try {
      return readFileSync(join(this.folder, file), "utf8");
    } catch {
      return "";
    }
  }

  files(): string[] {
    return readdirSync(this.folder);
  }

  /** 0 when the file is not there or says "max". */
  number(file: string): number {
    return Number(this.read(file).trim()) || 0;
  }

  /** A flat keyed file: "key value" lines. */
  keyed(file: string): Map<string, number> {
    const pairs = this.read(file)
      .split("\n")
      .flatMap((line): [string, number][] => {
        const [key, value] = line.split(" ");
        return key === undefined || value === undefined ? [] : [[key, Number(value)]];
      });
    return new Map(pairs);
  }

  oomKills(): number {
    return this.keyed("memory.events").get("oom_kill") ?? 0;
  }

  /** Calls back on every change of memory.events until the returned function is called. */
  watchMemoryEvents(onChange: () => void): () => void {
    const watcher = watch(join(this.folder, "memory.events"), { persistent: false }, onChange);
    watcher.on("error", () => {}); // the file goes with its cgroup
    return () => watcher.close();
  }

  /** Pids of the container and of the cgroups it made itself. */
  processes(): number[] {
    const own = this.read("cgroup.procs")
      .split("\n")
      .filter((line) => line !== "")
      .map(Number);
    return [...own, ...this.#children().flatMap((child) => child.processes())];
  }

  #children(): Cgroup[] {
    try {
      const folders = readdirSync(this.folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
      return folders.map(({ name }) => new Cgroup(join(relative(CONTAINERS, this.folder), name)));
    } catch {
      return [];
    }
  }

  /** Kills everything in it, forks included (cgroup.kill). */
  kill(): void {
    if (existsSync(this.folder)) writeFileSync(join(this.folder, "cgroup.kill"), "1");
  }

  async freeze(frozen: boolean): Promise<void> {
    this.#write("cgroup.freeze", frozen ? "1" : "0");
    for (let turn = 0; turn < RETRIES; turn++) {
      if (this.keyed("cgroup.events").get("frozen") === (frozen ? 1 : 0)) return;
      await pause();
    }
    this.#write("cgroup.freeze", "0");
    throw new TskataError("unavailable", "the container's processes did not freeze");
  }

  /** Removes it and what is below; what is in it must have been killed and may still be dying. */
  async remove(): Promise<void> {
    for (let turn = 0; turn < RETRIES && existsSync(this.folder); turn++) {
      if (turn > 0) await pause();
      for (const child of this.#children()) await child.remove();
      try {
        rmdirSync(this.folder);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
      }
    }
  }
}

/** writeFileSync would create it, to which the cgroup filesystem answers EACCES for a file that it has not. */
function writeExisting(path: string, value: string): void {
  const file = openSync(path, constants.O_WRONLY);
  try {
    writeSync(file, value);
  } finally {
    closeSync(file);
  }
}

async function pause(): Promise<void> {
  await after(RETRY_MS);
}
