/**
 * `npm run bench -- fs [TURNS [ROWS]]`: shared files, side by side in one virtual machine: our server, QEMU's virtiofsd and QEMU's 9p show the
 * same kind of folder to one guest (the testbed's machine, by KVM where that works; a pod's kernel with 9p), and guest.sh does each row's work on
 * one after the other, turn by turn. ROWS is a regular expression that picks some. docs/performance.md tells what comes out.
 *
 * TSKATA_BENCH_CONTESTANTS picks contestants, TSKATA_BENCH_BEFORE names an older build of the addon that is one, too. The folders are in memory
 * (/dev/shm), so that the host's disk is not measured; TSKATA_BENCH_FOLDER names another place.
 */
import type { ChildProcess } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { cachedKernel } from "../../../guest-kernel/build.ts";
import { FS_PATIENCE_US } from "../../../src/hypervisor/machine.ts";
import { median } from "../../lib/median.ts";
import { cacheFolder, hashOf, pinnedNode, step } from "../../lib/steps.ts";
import { VIRTIOFSD } from "../../testbed/machine.ts";
import { exited, startServer } from "../../testbed/servers.ts";
import { hostRunsKvm, runInTestbed } from "../../testbed.ts";
import { must } from "../must.ts";

/** `fs_threads` of the configuration, unless it is set. */
const THREADS = "2";
const GUEST_MEMORY_MIB = 4096;
const KERNEL_SOURCE = "/usr/src/linux-source-6.1.tar.xz";
/** Of some 80 000 files: as many as TCG unpacks in some seconds. */
const KERNEL_PARTS = ["kernel", "mm", "fs/ext4", "fs/fuse", "fs/xfs"];
const NPM = "/usr/lib/node_modules/npm/bin/npm-cli.js";
/**
 * What `npm ci` installs: a web application's usual packages, 488 with those they need, as the registry had them that day. With the cache 13 500
 * files and folders: virtiofsd needs a descriptor for each that the guest knows, and where nobody may raise limits it has 20 000.
 */
const PROJECT = {
  name: "bench",
  private: true,
  dependencies: {
    "@babel/core": "7.27.4",
    "@babel/preset-env": "7.27.2",
    "@babel/preset-react": "7.27.1",
    eslint: "9.28.0",
    express: "5.1.0",
    jest: "29.7.0",
    react: "19.1.0",
    "react-dom": "19.1.0",
  },
};
const PROJECT_DAY = "2026-11-01";
const NPM_OPTIONS = ["--ignore-scripts", "--no-audit", "--no-fund"];

/**
 * virtiofsd where it is fastest: names and attributes are kept for a day, no extended attributes (each file written would cost a question for
 * security.capability), no thread pool. "writeback" keeps data that was written in the guest, too, as "ours" does: a full disk is told at close(), times
 * are the guest's.
 */
const VIRTIOFSD_OPTIONS = ["-o", "cache=always", "-o", "no_xattr", "-o", "log_level=err", "--thread-pool-size=0"];
const VIRTIOFSD_SERVERS: Readonly<Record<string, readonly string[]>> = {
  virtiofsd: [...VIRTIOFSD_OPTIONS, "-o", "no_writeback"],
  writeback: [...VIRTIOFSD_OPTIONS, "-o", "writeback"],
};
/** "ours" is a container's root filesystem, "through" one of a pod without `sandbox.writeback`. */
const CONTESTANTS = ["ours", "through", "virtiofsd", "9p", "writeback", "volume", "before"] as const;
type Contestant = (typeof CONTESTANTS)[number];
/** An older build of the addon, to be compared with: dist/lib/tskata.node of then. */
const BEFORE = process.env["TSKATA_BENCH_BEFORE"];
const asked = (process.env["TSKATA_BENCH_CONTESTANTS"]?.split(" ") ?? CONTESTANTS).filter((name) => name !== "before" || BEFORE !== undefined) as Contestant[];
type Times = Map<string, Map<Contestant, number[]>>;

export async function benchFs(turns: number, rows: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "tskata-bench-"));
  const trees = mkdtempSync(join(process.env["TSKATA_BENCH_FOLDER"] ?? "/dev/shm", "tskata-bench-"));
  const children: ChildProcess[] = [];
  const remove = (): void => {
    for (const child of children) child.kill("SIGKILL");
    for (const path of [folder, trees]) rmSync(path, { recursive: true, force: true });
  };
  process.once("exit", remove); // the testbed exits when it is interrupted
  try {
    await step("folders for each contestant", async () => await prepare(folder, trees));
    const times = await measure(folder, trees, turns, rows, children);
    tell(times);
  } finally {
    remove();
    await Promise.all(children.map(exited));
    process.removeListener("exit", remove);
  }
}

// -- what is served --------------------------------------------------------------------------------------------------------------

/** Below `trees`; ours as a pod's tree is laid out (native/devices/fs/inode_table.h). */
const SERVED: Readonly<Record<Contestant, string>> = {
  ours: "ours/bench/rootfs",
  through: "through/bench/rootfs",
  volume: "volume/bench/mounts/0",
  virtiofsd: "virtiofsd",
  writeback: "writeback",
  "9p": "9p",
  before: "before/bench/rootfs",
};

async function prepare(folder: string, trees: string): Promise<void> {
  must("gcc", ["-O2", "-static", "-pthread", "-o", join(folder, "fs-work"), fileURLToPath(new URL("work.c", import.meta.url))]);
  const first = join(trees, SERVED.virtiofsd);
  mkdirSync(join(first, "tree"), { recursive: true });
  must("sh", [
    "-ec",
    `xz -dc ${KERNEL_SOURCE} | tar -xf - -C "$0" --strip-components=1 ${KERNEL_PARTS.map((part) => `linux-source-6.1/${part}`).join(" ")}`,
    join(first, "tree"),
  ]);
  must("tar", ["-cf", join(folder, "kernel.tar"), "-C", join(first, "tree"), "."]);
  const git = (at: string, ...args: string[]): void => void must("git", ["-C", join(at, "tree"), "-c", "user.name=bench", "-c", "user.email=bench", ...args]);
  git(first, "init", "--quiet");
  git(first, "add", "--all");
  git(first, "commit", "--quiet", "--message", "bench");
  mkdirSync(join(first, "data"));
  for (const [index, mib] of [64, 16, 16, 16].entries()) writeFileSync(join(first, `data/data.${index}`), Buffer.alloc(mib * 2 ** 20, 7));
  for (const name of ["project", "npm"]) cpSync(join(npmProject(), name), join(first, name), { recursive: true });
  for (const name of asked) {
    const at = join(trees, SERVED[name]);
    if (at !== first) {
      mkdirSync(join(at, ".."), { recursive: true });
      must("cp", ["-a", first, at]);
    }
    git(at, "status"); // its index knows the copy's inode numbers
  }
}

/** A folder with "project", the manifest and its lock file, and "npm", a cache of all that `npm ci` of it needs. */
function npmProject(): string {
  const manifest = JSON.stringify(PROJECT);
  const made = join(cacheFolder, `bench-npm-${hashOf({ text: manifest }, { text: PROJECT_DAY }).slice(0, 16)}`);
  if (existsSync(made)) return made;
  mkdirSync(cacheFolder, { recursive: true });
  const making = mkdtempSync(`${made}.`);
  const project = join(making, "project");
  const npm = (...args: string[]): void => void must(pinnedNode, [NPM, ...args, ...NPM_OPTIONS, "--prefix", project]);
  try {
    mkdirSync(project);
    writeFileSync(join(project, "package.json"), manifest);
    npm("install", "--package-lock-only", `--before=${PROJECT_DAY}`, "--cache", join(making, "metadata"));
    npm("ci", "--cache", join(making, "npm"));
    for (const name of ["project/node_modules", "metadata"]) rmSync(join(making, name), { recursive: true });
    renameSync(making, made);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return made;
}

// -- the run ---------------------------------------------------------------------------------------------------------------------

async function measure(folder: string, trees: string, turns: number, rows: string, children: ChildProcess[]): Promise<Times> {
  const accelerator = (await hostRunsKvm()) ? "kvm" : "tcg";
  const shares = await startServers(folder, trees, FS_PATIENCE_US[accelerator], children);
  const times: Times = new Map();
  const ninep = [`local,id=nine,path=${join(trees, SERVED["9p"])},security_model=passthrough`, "virtio-9p-pci,fsdev=nine,mount_tag=9p"] as const;
  const stdout = lines((line) => {
    const [row = "", contestant = "", seconds = ""] = line.split("|");
    process.stderr.write(`${contestant.padEnd(10)}${row}: ${seconds}\n`);
    const of = times.get(row) ?? new Map<Contestant, number[]>();
    times.set(row, of);
    of.set(contestant as Contestant, [...(of.get(contestant as Contestant) ?? []), Number(seconds)]);
  });
  const { status } = await runInTestbed({
    command: ["bash", fileURLToPath(new URL("guest.sh", import.meta.url))],
    cwd: folder,
    env: {
      ...{ WORK: join(folder, "fs-work"), FOLDER: folder, TURNS: String(turns), ROWS: rows, NODE: pinnedNode, NPM },
      CONTESTANTS: asked.join(" "),
    },
    memoryMib: GUEST_MEMORY_MIB,
    // All of it is built in.
    kernel: { image: join(await cachedKernel(["scripts/bench/fs/kernel.config"]), "vmlinux"), version: "bench" },
    accelerator,
    shares,
    devices: asked.includes("9p") ? ["-fsdev", ninep[0], "-device", ninep[1]] : [],
    stdout,
  });
  if (status !== 0) throw new Error(`the guest's side ended with ${status}`);
  return times;
}

async function startServers(folder: string, trees: string, patienceUs: number, children: ChildProcess[]): Promise<Record<string, string>> {
  const shares: Record<string, string> = {};
  const start = async (tag: string, command: (socket: string) => string[]): Promise<void> => {
    const socket = join(folder, `${tag}.sock`);
    await startServer(command(socket), socket, children);
    shares[tag] = socket;
  };
  for (const [tag, addon] of [["ours"], ["through"], ["volume"], ["before", BEFORE]] as const) {
    if (!asked.includes(tag)) continue;
    const chosen = addon === undefined ? [] : ["env", `TSKATA_ADDON=${addon}`];
    const server = fileURLToPath(new URL("server.ts", import.meta.url));
    await start(tag, (socket) => [
      ...chosen,
      pinnedNode,
      "--disable-warning=ExperimentalWarning",
      server,
      join(trees, tag),
      tag,
      socket,
      THREADS,
      String(patienceUs),
      String(tag === "ours"),
    ]);
  }
  for (const tag of asked) {
    const options = VIRTIOFSD_SERVERS[tag];
    if (options === undefined) continue;
    // In a mount namespace of its own, where it leaves its pid file.
    const script = 'mount -t tmpfs tmpfs /run; exec "$0" "$@"';
    const command = [VIRTIOFSD, "-o", `source=${join(trees, SERVED[tag])}`, ...options];
    await start(tag, (socket) => ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, ...command, `--socket-path=${socket}`]);
  }
  return shares;
}

function lines(take: (line: string) => void): Writable {
  let rest = "";
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const all = (rest + chunk.toString("utf8")).split("\n");
      rest = all.pop() ?? "";
      for (const line of all) take(line);
      done();
    },
  });
}

// -- what came out ---------------------------------------------------------------------------------------------------------------

function tell(times: Times): void {
  const print = (cells: readonly string[]): void => void process.stdout.write(`| ${cells.join(" | ")} |\n`);
  const rivals = asked.filter((name) => name !== "ours");
  print(["seconds, medians", ...asked, ...rivals.map((name) => `${name}/ours`)]);
  print(["---", ...asked, ...rivals].map((_, index) => (index === 0 ? "---" : "---:")));
  const ratios = new Map<string, number[]>(rivals.map((name) => [name, []]));
  for (const [row, of] of times) {
    const at = (name: Contestant): number => median(of.get(name) ?? []);
    const against = rivals.map((name) => at(name) / at("ours"));
    for (const [index, name] of rivals.entries()) ratios.get(name)?.push(against[index] ?? Number.NaN);
    print([row, ...asked.map((name) => at(name).toFixed(3)), ...against.map((ratio) => ratio.toFixed(2))]);
  }
  const means = rivals.map((name) => geometricMean(ratios.get(name) ?? []));
  print(["geometric mean", ...asked.map(() => ""), ...means.map((mean) => mean.toFixed(2))]);
}

function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
