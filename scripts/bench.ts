/**
 * `npm run bench [-- NAME [TURNS]…]`, `npm run bench -- fs [TURNS [ROWS]]`: what docs/performance.md holds. Times are compared side by side in one run, turn by
 * turn, and told as medians: absolute ones say more about the machine than about the product. `streams-soak` is what docs/reliability.md holds: for hours.
 */
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { benchFs } from "./bench/fs/fs.ts";
import { must, print } from "./bench/must.ts";
import { benchExec, benchStreams, soakStreams } from "./bench/streams.ts";
import { median } from "./lib/median.ts";
import { sleepingBundle } from "./lib/sleeping-bundle.ts";
import { cacheFolder, distFolder, pinnedNode } from "./lib/steps.ts";
import { setup } from "./setup.ts";

const TSKATA = join(distFolder, "bin/tskata");
const QEMU = "qemu-system-x86_64";

function run(program: string, args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Milliseconds of each contestant, one turn after the other; a turn whose work says false is told and not counted. */
function race(turns: number, contestants: Readonly<Record<string, () => unknown>>): Map<string, number[]> {
  const times = new Map<string, number[]>();
  for (let turn = 0; turn < turns; turn++) {
    for (const [name, work] of Object.entries(contestants)) {
      const start = process.hrtime.bigint();
      const finished = work() !== false;
      const took = Number(process.hrtime.bigint() - start) / 1e6;
      if (finished) times.set(name, [...(times.get(name) ?? []), took]);
      else print(`${name}: one turn hung`);
    }
  }
  return times;
}

function tell(times: ReadonlyMap<string, number[]>): void {
  for (const [name, values] of times)
    print(`${name.padEnd(44)} ${median(values).toFixed(1).padStart(9)} ms (least ${Math.min(...values).toFixed(1)}, ${values.length} turns)`);
}

// -- a container to measure ------------------------------------------------------------------------------------------------

function withContainer(work: (root: string, folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "tskata-bench-"));
  const root = join(folder, "root");
  try {
    sleepingBundle(folder);
    const created = spawnSync(TSKATA, ["--root", root, "create", "--bundle", folder, "bench"], { stdio: ["ignore", "ignore", "inherit"] });
    if (created.status !== 0) throw new Error("create failed");
    must(TSKATA, ["--root", root, "start", "bench"]);
    work(root, folder);
  } finally {
    run(TSKATA, ["--root", root, "delete", "--force", "bench"]);
    rmSync(folder, { recursive: true, force: true });
  }
}

// -- what is measured --------------------------------------------------------------------------------------------------------

function benchState(turns = 30): void {
  withContainer((root) => {
    print("## state");
    tell(
      race(turns, {
        "node -e 0": () => void must(pinnedNode, ["-e", "0"]),
        "tskata state": () => void must(TSKATA, ["--root", root, "state", "bench"]),
        "runc state (of a container that is not there)": () => void run("runc", ["--root", root, "state", "nobody"]),
        "tskata state (of a container that is not there)": () => void run(TSKATA, ["--root", root, "state", "nobody"]),
      }),
    );
  });
}

function benchStart(): void {
  withContainer((root) => {
    print("## start");
    print(must(TSKATA, ["--root", root, "timeline", "bench"]));
  });
}

/** Private memory: what would be free if the process alone went. */
function benchMemory(): void {
  withContainer((root) => {
    print("## memory of a pod, private and proportional (KiB)");
    const state = JSON.parse(readFileSync(join(root, "bench/state.json"), "utf8")) as { pod: { sandboxPid: number }; proxy: { pid: number } };
    const children = readFileSync(`/proc/${state.pod.sandboxPid}/task/${state.pod.sandboxPid}/children`, "utf8").trim().split(" ");
    const pids = { sandbox: String(state.pod.sandboxPid), qemu: children[0] ?? "", proxy: String(state.proxy.pid) };
    for (const [name, pid] of Object.entries(pids)) {
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      const field = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(rollup)?.[1] ?? 0);
      print(
        `${name.padEnd(10)} private ${String(field("Private_Clean") + field("Private_Dirty")).padStart(8)}   proportional ${String(field("Pss")).padStart(8)}`,
      );
    }
  });
}

/** Debian's kernel for cloud machines, out of its package. */
function debianKernel(): { kernel: string; version: string } {
  const folder = join(cacheFolder, "bench-debian-kernel");
  if (!existsSync(folder)) {
    mkdirSync(folder, { recursive: true });
    const depends = must("apt-cache", ["depends", "linux-image-cloud-amd64"]);
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined) throw new Error("apt knows no Debian cloud kernel");
    const { status, stderr } = spawnSync("sh", ["-ec", `cd "${folder}"; apt-get -q download ${name}; dpkg-deb -x *.deb .`], { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  }
  const file = readdirSync(join(folder, "boot")).find((entry) => entry.startsWith("vmlinuz-")) ?? "";
  return { kernel: join(folder, "boot", file), version: file.slice("vmlinuz-".length) };
}

/** A tree whose /init is static busybox: says so, and reboots. */
function initTree(folder: string): string {
  const tree = join(folder, "tree");
  for (const name of ["bin", "dev", "proc"]) mkdirSync(join(tree, name), { recursive: true });
  copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  writeFileSync(join(tree, "init"), "#!/bin/busybox sh\n/bin/busybox echo INIT\n/bin/busybox reboot -f\n", { mode: 0o755 });
  return tree;
}

const HANG_MS = 20_000;

/** False when it hung: under TCG a calibration against the emulated PIT now and then does. */
function bootTo(machine: string, args: readonly string[], commandLine: string): boolean {
  const common = ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-accel", "tcg", "-cpu", "EPYC", "-m", "512", "-serial", "stdio"];
  const whole = [...common, "-M", `microvm,x-option-roms=off,rtc=on${machine}`, ...args, "-append", `console=ttyS0 quiet panic=-1 ${commandLine}`];
  const { stdout, status } = spawnSync(QEMU, whole, { encoding: "utf8", timeout: HANG_MS, killSignal: "SIGKILL", stdio: ["ignore", "pipe", "ignore"] });
  return status === 0 && stdout.includes("INIT");
}

/** Each as it is meant to boot: ours from an erofs disk with nothing but virtio-mmio, Debian's from an initramfs with ACPI. */
function benchBoot(turns = 5): void {
  print("## kernel boot, from QEMU's start to its end after /init (TCG)");
  const folder = mkdtempSync(join(tmpdir(), "tskata-bench-"));
  try {
    const tree = initTree(folder);
    const [disk, initrd] = [join(folder, "disk.erofs"), join(folder, "initramfs")];
    must("mkfs.erofs", [disk, tree]);
    must("sh", ["-ec", `cd "${tree}"; find . | busybox cpio -o -H newc >"${initrd}"`]);
    const ours = join(distFolder, "guest/vmlinux");
    const debian = debianKernel();
    for (const [name, file] of [
      ["tskata", ours],
      [debian.version, debian.kernel],
    ] as const)
      print(`${name}: ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`);
    const blk = ["-drive", `id=disk,file=${disk},format=raw,if=none,readonly=on`, "-device", "virtio-blk-device,drive=disk,bus=virtio-mmio-bus.0"];
    const root = "reboot=t root=/dev/vda rootfstype=erofs ro init=/init virtio_mmio.device=512@0xfeb00000:5";
    tell(
      race(turns, {
        "guest kernel": () => bootTo(",acpi=off,auto-kernel-cmdline=off", ["-kernel", ours, ...blk], root),
        [`Debian ${debian.version}`]: () => bootTo("", ["-kernel", debian.kernel, "-initrd", initrd], ""),
      }),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** `turns`: as many as asked for, or as the bench finds enough. */
type Bench = (turns?: number) => void | Promise<void>;

const BENCHES: Readonly<Record<string, Bench>> = {
  state: benchState,
  start: benchStart,
  memory: benchMemory,
  boot: benchBoot,
  streams: benchStreams,
  exec: benchExec,
};
/** Only when asked for by name. */
const LONG: Readonly<Record<string, Bench>> = { "streams-soak": soakStreams };

const FS_TURNS = 5;

await setup();
const words = process.argv.slice(2);
if (words.length === 0) for (const bench of Object.values(BENCHES)) await bench();
// Takes words of its own, and too long to be one of all.
if (words[0] === "fs") await benchFs(Number(words[1] ?? FS_TURNS), words[2] ?? "");
for (let index = words[0] === "fs" ? words.length : 0; index < words.length; index++) {
  const name = words[index] ?? "";
  const bench = BENCHES[name] ?? LONG[name];
  if (bench === undefined) throw new Error(`there is no bench "${name}": ${Object.keys({ ...BENCHES, ...LONG }).join(", ")}`);
  const turns = /^\d+$/.test(words[index + 1] ?? "") ? Number(words[++index]) : undefined;
  await bench(turns);
}
