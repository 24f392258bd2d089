/** The cells that are no kill: full disks, no memory, no descriptors, a reboot, callers at the same time, clocks that jump. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { bootId, isAlive, processRef } from "../../../src/base/process.ts";
import { hierarchies } from "../../../src/host/cgroup.ts";
import type { StateFile } from "../../../src/oci/state-file.ts";
import { TEST_DISK } from "../host.ts";
import { binary, describe, type Outcome, outcomeOf, repository, type Scratch } from "../tskata.ts";
import { type Cell, call, create, must, REMEDIES, type Remedy, remedy } from "./cell.ts";

export function specialCells(): Cell[] {
  return [...fullDisk(), ...noMemory(), ...noDescriptors(), ...reboot(), ...races(), ...clocks()];
}

// -- full disk --------------------------------------------------------------------------------------------------------------------------

/** tmpfs takes its sizes in pages; a state folder is a dozen files of a page or two. */
const SIZES_KIB = [4, 8, 12, 16, 24, 32, 48];
const INODES = [2, 3, 4, 6, 8, 10, 12, 14, 16, 18];

function fullDisk(): Cell[] {
  const limits = [...SIZES_KIB.map((size) => `size=${size}k`), ...INODES.map((count) => `nr_inodes=${count}`)];
  return [
    ...limits.flatMap((limit) => REMEDIES.map((how) => fullRoot(limit, how))),
    ...REMEDIES.map((how) => filledRoot(how)),
    ...REMEDIES.map((how) => fullBundle(how)),
  ];
}

/** --root on a file system that gets full while a container is created, or has been from the start. */
function fullRoot(limit: string, how: Remedy): Cell {
  return {
    name: `full disk: --root with ${limit}, then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      using _disk = tmpfs(scratch.root, limit);
      const created = await create(scratch, problems, id, await scratch.sharedBundle());
      if (created.code === 0) await live(scratch, problems, id);
      else if (!/ENOSPC|no space/i.test(created.stderr)) problems.push(`not told why: ${describe(created)}`);
      await remedy(scratch, problems, how, id);
      problems.push(...emptied(scratch.root));
      return problems;
    },
  };
}

/** The disk gets full while a container runs: nothing new is possible, its end is. */
function filledRoot(how: Remedy): Cell {
  return {
    name: `full disk: --root filled under a running container, then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      using _disk = tmpfs(scratch.root, "size=4m");
      await create(scratch, problems, id, await scratch.sharedBundle());
      await must(scratch, problems, ["start", id]);
      const filler = join(scratch.root, "filler");
      fill(filler);
      await live(scratch, problems, id);
      await remedy(scratch, problems, how, id);
      rmSync(filler);
      problems.push(...emptied(scratch.root));
      return problems;
    },
  };
}

/** The container's own disk: the runtime makes mount points in it. */
function fullBundle(how: Remedy): Cell {
  return {
    name: `full disk: root filesystem without room, then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      const disk = join(scratch.folder, "disk");
      mkdirSync(disk, { recursive: true });
      using _disk = tmpfs(disk, "size=4m");
      const source = await scratch.sharedBundle((spec) => {
        spec.mounts.push({ destination: "/new/mount/point", type: "tmpfs", source: "tmpfs" });
      });
      if (spawnSync("cp", ["-a", `${source}/.`, disk]).status !== 0) problems.push("the bundle could not be copied");
      fill(join(disk, "filler"));
      const created = await create(scratch, problems, id, disk);
      if (created.code === 0) await live(scratch, problems, id);
      await remedy(scratch, problems, how, id);
      return problems;
    },
  };
}

function tmpfs(folder: string, options: string): Disposable {
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", options, TEST_DISK, folder], { encoding: "utf8" });
  if (status !== 0) throw new Error(`mount tmpfs ${options}: ${stderr}`);
  return {
    [Symbol.dispose]: () => {
      if (spawnSync("umount", [folder]).status !== 0) spawnSync("umount", ["-l", folder]);
    },
  };
}

function fill(file: string): void {
  for (const size of [65536, 4096, 1]) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(size, "x"), { flag: "a" });
    } catch {
      // No room for this much.
    }
  }
}

/** All blocks of a tmpfs are free again when nothing is in it. */
function emptied(folder: string): string[] {
  const { blocks, bfree, files, ffree } = statfsSync(folder);
  const names = readdirSync(folder);
  const used = names.length > 0 || bfree !== blocks || (files > 0 && files - ffree > 1);
  return used ? [`left on the disk: ${names.join(" ")} (${blocks - bfree} blocks, ${files - ffree} files)`] : [];
}

/** What one does with a container when all is well; here only each call's end is asked for. */
async function live(scratch: Scratch, problems: string[], id: string): Promise<void> {
  for (const args of [
    ["start", id],
    ["exec", id, "true"],
    ["kill", id, "KILL"],
  ])
    await call(scratch, problems, args);
}

// -- no memory --------------------------------------------------------------------------------------------------------------------------

const MEMORY_MIB = [16, 48, 64, 112, 160, 240, 400, 700];
/** Up to this the limit must have been met: with more it depends on the driver, and on what the page cache holds. */
const SURELY_LITTLE_MIB = 160;

function noMemory(): Cell[] {
  const mount = memoryHierarchy();
  return MEMORY_MIB.flatMap((mib) => REMEDIES.map((how) => littleMemory(mount, mib, how)));
}

interface MemoryCgroups {
  readonly mountPoint: string;
  readonly limit: string;
  /** How often the limit was met, of this cgroup and those below it. */
  met(folder: string): number;
}

/** Undefined where no cgroup can limit memory. */
export function memoryHierarchy(): MemoryCgroups | undefined {
  for (const { mountPoint, version, controllers } of hierarchies()) {
    const has = version === 1 ? controllers.includes("memory") : readFileSync(join(mountPoint, "cgroup.controllers"), "utf8").includes("memory");
    if (!has) continue;
    const [limit, file, line] = version === 1 ? ["memory.limit_in_bytes", "memory.failcnt", /^(\d+)/] : ["memory.max", "memory.events", /^max (\d+)$/m];
    return { mountPoint, limit, met: (folder) => Number(line.exec(readFileSync(join(folder, file), "utf8"))?.[1]) };
  }
  return undefined;
}

/** Command and pod in a cgroup that gives them little: allocations fail, and the kernel kills. */
function littleMemory(cgroups: MemoryCgroups | undefined, mib: number, how: Remedy): Cell {
  return {
    name: `no memory: ${mib} MiB for command and pod, then ${how}`,
    run: async (scratch, id) => {
      if (cgroups === undefined) throw new Error("no cgroup of this host limits memory: this cell needs one");
      const problems: string[] = [];
      const name = `${basename(scratch.folder)}-${id}`;
      using _limit = limited(cgroups, name, mib);
      const bundle = await scratch.sharedBundle((spec) => {
        spec.linux.cgroupsPath = `/${name}/pod`;
      });
      const through = ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', join(cgroups.mountPoint, name, "cgroup.procs")];
      const created = await create(scratch, problems, id, bundle, {}, through);
      if (created.code === 0) await live(scratch, problems, id);
      await remedy(scratch, problems, how, id);
      const met = cgroups.met(join(cgroups.mountPoint, name));
      if (mib <= SURELY_LITTLE_MIB && !(met > 0)) problems.push(`the limit was met ${met} times: ${describe(created)}`);
      return problems;
    },
  };
}

function limited({ mountPoint, limit }: MemoryCgroups, name: string, mib: number): Disposable {
  const folder = join(mountPoint, name);
  mkdirSync(folder);
  writeFileSync(join(folder, limit), String(mib * 1024 * 1024));
  return { [Symbol.dispose]: () => rmdirSync(folder) };
}

// -- no descriptors ---------------------------------------------------------------------------------------------------------------------

/** So few that nothing can come of it: the command itself has too few, later the machine. */
const FAR_TOO_FEW = 48;
const DESCRIPTORS = [12, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 88, 96];

function noDescriptors(): Cell[] {
  return DESCRIPTORS.flatMap((count) =>
    REMEDIES.map((how) => ({
      name: `no descriptors: ${count} for command and pod, then ${how}`,
      run: async (scratch: Scratch, id: string) => {
        const problems: string[] = [];
        const through = ["prlimit", `--nofile=${count}:${count}`];
        const created = await create(scratch, problems, id, await scratch.sharedBundle(), {}, through);
        if (created.code === 0) await live(scratch, problems, id);
        if (created.code === 0 && count <= FAR_TOO_FEW) problems.push("there were enough descriptors");
        if (created.code !== 0 && !/EMFILE|too many open files|no more may be open/i.test(created.stderr)) problems.push(`not told why: ${describe(created)}`);
        await remedy(scratch, problems, how, id);
        return problems;
      },
    })),
  );
}

// -- reboot -----------------------------------------------------------------------------------------------------------------------------

function reboot(): Cell[] {
  return REMEDIES.flatMap((how) => [true, false].map((started) => rebooted(how, started)));
}

/**
 * The state folder as it is after the host has started anew: processes, mounts and cgroups have gone, and others have their names now, with
 * the very pids and start times in the worst case. Only the boot id tells.
 */
function rebooted(how: Remedy, started: boolean): Cell {
  return {
    name: `reboot: of a ${started ? "running" : "created"} container only the state is left, and its pids are others', then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      const saved = join(scratch.folder, "saved");
      await scratch.create(id, await scratch.sharedBundle());
      if (started) await scratch.ok(["start", id]);
      const cgroup = stateOf(scratch, id).cgroups[0] ?? "";
      spawnSync("cp", ["-a", join(scratch.root, id), saved]);
      await scratch.ok(["delete", "--force", id]);
      spawnSync("mv", [saved, join(scratch.root, id)]);
      const innocent = spawn("sleep", ["1000"], { stdio: "ignore" });
      try {
        takeOver(scratch, id, innocent, cgroup);
        const { stdout, stderr } = await call(scratch, problems, ["state", id]);
        if (!stdout.includes('"status": "stopped"')) problems.push(`not stopped after a reboot: ${stdout}${stderr}`);
        await remedy(scratch, problems, how, id);
        if (innocent.exitCode !== null || innocent.signalCode !== null) problems.push("a process of the new boot was killed");
      } finally {
        innocent.kill("SIGKILL");
        await new Promise((done) => innocent.once("close", done));
        if (existsSync(cgroup)) rmdirSync(cgroup);
      }
      return problems;
    },
  };
}

function stateOf(scratch: Scratch, id: string): StateFile {
  return JSON.parse(readFileSync(join(scratch.root, id, "state.json"), "utf8")) as StateFile;
}

/** Someone else has the pids of the state now, its start times, and the name of its cgroup. */
function takeOver(scratch: Scratch, id: string, other: ChildProcess, cgroup: string): void {
  const ref = processRef(other.pid ?? 0);
  if (ref === undefined) throw new Error("sleep did not start");
  const state = stateOf(scratch, id);
  const pod = { ...state.pod, sandboxPid: ref.pid, sandboxStartTime: ref.startTime };
  if (state.boot !== bootId()) throw new Error("a state without its boot");
  const before = { ...state, boot: "11111111-2222-3333-4444-555555555555", creator: ref, proxy: ref, pod };
  writeFileSync(join(scratch.root, id, "state.json"), JSON.stringify(before));
  if (cgroup === "") return;
  mkdirSync(cgroup, { recursive: true });
  writeFileSync(join(cgroup, "cgroup.procs"), String(ref.pid));
}

// -- two callers at once ----------------------------------------------------------------------------------------------------------------

interface Race {
  readonly name: string;
  /** What there is before: nothing, or a container in this state. */
  readonly from: "nothing" | "created" | "running";
  readonly calls: readonly [string, string];
  check?(outcomes: readonly [Outcome, Outcome]): string[];
}

const DELAYS_MS = [0, 60, 150, 400];

const RACES: readonly Race[] = [
  { name: "create and create", from: "nothing", calls: ["create", "create"], check: oneOf(/already exists/) },
  { name: "create and delete --force", from: "nothing", calls: ["create", "delete"] },
  { name: "create and gc", from: "nothing", calls: ["create", "gc"], check: bothWell },
  { name: "start and delete --force", from: "created", calls: ["start", "delete"] },
  { name: "start and start", from: "created", calls: ["start", "start"], check: oneOf(/already running/) },
  { name: "exec and delete --force", from: "running", calls: ["exec", "delete"] },
  { name: "kill and delete --force", from: "running", calls: ["kill", "delete"] },
  { name: "delete --force twice", from: "running", calls: ["delete", "delete"], check: bothWell },
  { name: "delete --force and gc", from: "running", calls: ["delete", "gc"], check: bothWell },
];

function races(): Cell[] {
  return RACES.flatMap((race) => DELAYS_MS.map((delayMs) => raceCell(race, delayMs)));
}

function raceCell({ name, from, calls, check }: Race, delayMs: number): Cell {
  return {
    name: `race: ${name}, ${delayMs} ms apart, then delete`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      const bundle = await scratch.sharedBundle();
      if (from !== "nothing") await scratch.create(id, bundle);
      if (from === "running") await scratch.ok(["start", id]);
      const second = after(delayMs).then(async () => await verb(scratch, problems, calls[1], id, bundle));
      const outcomes = await Promise.all([verb(scratch, problems, calls[0], id, bundle), second]);
      problems.push(...(check?.(outcomes) ?? []));
      for (const { stderr } of outcomes) if (/TypeError|at \w+.*:\d+:\d+|internal/.test(stderr)) problems.push(`not told in words: ${stderr}`);
      await remedy(scratch, problems, "delete", id);
      return problems;
    },
  };
}

async function verb(scratch: Scratch, problems: string[], name: string, id: string, bundle: string): Promise<Outcome> {
  switch (name) {
    case "create":
      return await create(scratch, problems, id, bundle);
    case "exec":
      return await call(scratch, problems, ["exec", id, "true"]);
    case "kill":
      return await call(scratch, problems, ["kill", id, "KILL"]);
    case "delete":
      return await call(scratch, problems, ["delete", "--force", id]);
    case "gc":
      return await call(scratch, problems, ["gc"]);
    default:
      return await call(scratch, problems, [name, id]);
  }
}

function bothWell(outcomes: readonly Outcome[]): string[] {
  return outcomes.filter(({ code }) => code !== 0).map((outcome) => `both should have done well: ${describe(outcome)}`);
}

/** Two creates write to one log: who lost says so there. */
function oneOf(loser: RegExp): (outcomes: readonly [Outcome, Outcome]) => string[] {
  return (outcomes) => {
    const codes = outcomes.map(({ code }) => code);
    const told = outcomes.some(({ code, stderr }) => code !== 0 && loser.test(stderr));
    return codes.filter((code) => code === 0).length === 1 && told ? [] : [`one of the two should have won: ${outcomes.map(describe).join("\n")}`];
  };
}

// -- clocks -----------------------------------------------------------------------------------------------------------------------------

const DAY_S = 86_400;

function clocks(): Cell[] {
  return [...REMEDIES.flatMap((how) => [DAY_S, -DAY_S].map((seconds) => jumpingClock(seconds, how))), otherTimeNamespace()];
}

/** The wall clock of every command goes to and fro, ten times a second. */
function jumpingClock(seconds: number, how: Remedy): Cell {
  return {
    name: `clock: jumps by ${seconds > 0 ? "+" : "-"}1 day and back in every call, with the sandbox process stopped at the end, then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      const env = { LD_PRELOAD: shim(scratch), CLOCK_JUMP_SECONDS: String(seconds) };
      const created = await create(scratch, problems, id, await scratch.sharedBundle(), env);
      if (created.code !== 0) problems.push(describe(created));
      await must(scratch, problems, ["start", id], { env });
      await must(scratch, problems, ["exec", id, "true"], { env });
      await must(scratch, problems, ["gc"], { env });
      const { sandboxPid } = stateOf(scratch, id).pod;
      if (sandboxPid === undefined) return [...problems, "gc took a healthy container"];
      // Every wait for it goes to its deadline.
      process.kill(sandboxPid, "SIGSTOP");
      if (how === "gc") process.kill(sandboxPid, "SIGKILL");
      await must(scratch, problems, how === "gc" ? ["gc"] : ["delete", "--force", id], { env });
      return problems;
    },
  };
}

function shim(scratch: Scratch): string {
  const file = join(scratch.folder, "clock-jump.so");
  if (existsSync(file)) return file;
  const args = ["-shared", "-fPIC", "-O1", "-o", file, join(repository, "test/fixtures/clock-jump.c")];
  const { status, stderr } = spawnSync("cc", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`cc: ${stderr}`);
  return file;
}

/** The kernel tells a process's start in the reader's time namespace. */
function otherTimeNamespace(): Cell {
  return {
    name: "clock: commands in a time namespace that was booted later",
    run: async (scratch, id) => {
      const problems: string[] = [];
      await scratch.create(id, await scratch.sharedBundle());
      await scratch.ok(["start", id]);
      for (const args of [["gc"], ["state", id]]) {
        const outcome = await elsewhere(scratch, args);
        const good = outcome.code === 0 && (args[0] === "gc" ? outcome.stdout === "" : outcome.stdout.includes('"running"'));
        if (!good) problems.push(`${args.join(" ")} in another time namespace: ${describe(outcome)}`);
      }
      if (!isAlive(processRef(stateOf(scratch, id).proxy?.pid ?? 0))) problems.push("the container has gone");
      const deleted = await elsewhere(scratch, ["delete", "--force", id]);
      if (deleted.code !== 0) problems.push(describe(deleted));
      return problems;
    },
  };
}

async function elsewhere(scratch: Scratch, args: string[]): Promise<Outcome> {
  // Linux 6.1 gives a new time namespace to children alone, and their parent may make no threads.
  const command = ["--time", "--boottime", "100000", "--fork", binary, "--root", scratch.root, ...args];
  return await outcomeOf(spawn("unshare", command, { cwd: dirname(scratch.root), stdio: ["pipe", "pipe", "pipe"] }), { timeoutMs: 60_000 });
}
