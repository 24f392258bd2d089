/** The measurements of bench-vmm.ts, on a machine with a working /dev/kvm. */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startKvm } from "../../src/hypervisor/kvm/kvm.ts";
import type { Machine, MachineOptions } from "../../src/hypervisor/machine.ts";
import { startQemu } from "../../src/hypervisor/qemu/qemu.ts";
import { native } from "../../src/native.ts";
import { median } from "../lib/median.ts";
import { family } from "../lib/processes.ts";
import { scriptedGuest } from "../lib/scripted-guest.ts";
import { sleepingBundle } from "../lib/sleeping-bundle.ts";
import { distFolder } from "../lib/steps.ts";
import { print } from "./must.ts";

const TSKATA = join(distFolder, "bin/tskata");
/** A turn that takes longer is lost, and told. */
const HANG_MS = 120_000;
const DRIVERS = ["kvm", "qemu"] as const;
type Driver = (typeof DRIVERS)[number];

const folder = mkdtempSync(join(tmpdir(), "tskata-vmm-"));
const table = new Map<string, Record<Driver, number[]>>();

function note(row: string, driver: Driver, value: number): void {
  const values = table.get(row) ?? { kvm: [], qemu: [] };
  values[driver].push(value);
  process.stderr.write(`${driver.padEnd(6)}${row}: ${value.toFixed(1)}\n`);
  table.set(row, values);
}

function tell(): void {
  print(`${"".padEnd(52)}${"kvm".padStart(10)}${"qemu".padStart(10)}${"ratio".padStart(8)}`);
  for (const [row, { kvm, qemu }] of table) {
    const [ours, theirs] = [median(kvm), median(qemu)];
    print(`${row.padEnd(52)}${ours.toFixed(1).padStart(10)}${theirs.toFixed(1).padStart(10)}${(ours / theirs).toFixed(2).padStart(8)}`);
  }
}

// -- machines without tskata around them ------------------------------------------------------------------------------------

/** A kernel whose first instruction is its last: a triple fault, which ends either machine. ELF with a 64-bit and a PVH entry. */
function faultingKernel(): string {
  const [entry, headers, code] = [0x100_0000, 64 + 2 * 56, 64 + 2 * 56 + 20];
  const file = Buffer.alloc(code + 16);
  file.write("\x7fELF\x02\x01\x01", 0, "latin1");
  file.writeUInt16LE(2, 16);
  file.writeUInt16LE(62, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(entry), 24);
  file.writeBigUInt64LE(64n, 32);
  [64, 56, 2].forEach((value, i) => void file.writeUInt16LE(value, 52 + i * 2));
  const segment = (at: number, type: number, offset: number, bytes: number, align: number): void => {
    file.writeUInt32LE(type, at);
    file.writeUInt32LE(5, at + 4);
    for (const [i, value] of [offset, entry, entry, bytes, bytes, align].entries()) file.writeBigUInt64LE(BigInt(value), at + 8 + i * 8);
  };
  segment(64, 1, code, 16, 4096);
  segment(64 + 56, 4, headers, 20, 4);
  // XEN_ELFNOTE_PHYS32_ENTRY: name "Xen", description the entry's address.
  [4, 4, 18].forEach((value, i) => void file.writeUInt32LE(value, headers + i * 4));
  file.write("Xen\0", headers + 12, "latin1");
  file.writeUInt32LE(entry, headers + 16);
  file.set([0x0f, 0x0b], code); // ud2
  const path = join(folder, "faulting-kernel");
  writeFileSync(path, file);
  return path;
}

async function lifetime(driver: Driver, kernel: string, image: string): Promise<number> {
  const vsock = native().createVsock({ guestCid: 3, path: "vsock", guestPorts: [] });
  const fs = native().createFs({ root: "shared", tag: "tskata", threads: 2 });
  const shared = [{ tag: "tskata", device: fs }];
  const options: MachineOptions = { kernel, image, kernelParameters: [], vcpus: 1, memoryMib: 512, vsock, shared, consoleLog: "console.log" };
  const start = process.hrtime.bigint();
  const machine = startMachine(driver, options);
  await machine.ended;
  const took = Number(process.hrtime.bigint() - start) / 1e6;
  for (const device of [vsock, fs]) device.close();
  return took;
}

function startMachine(driver: Driver, options: MachineOptions): Machine {
  if (driver === "kvm") return startKvm("/dev/kvm", options);
  const jail = join(distFolder, "lib/tskata-jail");
  return startQemu({ program: "/usr/bin/qemu-system-x86_64", accelerator: "kvm", jail, seccomp: "off", log: "qemu.log" }, options);
}

// -- whole pods ------------------------------------------------------------------------------------------------------------------

interface Span {
  readonly name: string;
  readonly process: string;
  readonly startNs: string;
  readonly endNs: string;
}

class Pod {
  readonly #driver: Driver;
  readonly #root: string;
  readonly #config: string;

  constructor(driver: Driver) {
    this.#driver = driver;
    this.#root = join(folder, `root-${driver}`);
    this.#config = join(folder, `${driver}.toml`);
    mkdirSync(this.#root, { recursive: true });
    writeFileSync(this.#config, `[hypervisor]\ndriver = "${driver}"\naccelerator = "kvm"\n[sandbox]\nlog_level = "debug"\n`);
  }

  /** Its standard error. */
  run(args: readonly string[], stdout: "ignore" | "pipe" = "ignore"): string {
    const all = ["--config", this.#config, "--root", this.#root, ...args];
    const { status, signal, stderr } = spawnSync(TSKATA, all, {
      encoding: "utf8",
      stdio: ["ignore", stdout, "pipe"],
      maxBuffer: 2 ** 30,
      timeout: HANG_MS,
      killSignal: "SIGKILL",
    });
    if (status !== 0) throw new Error(`tskata ${args.join(" ")}: ${signal === null ? stderr : `no end after ${HANG_MS / 1000} s`}`);
    return stderr;
  }

  start(bundle: string): void {
    // A detached container keeps the standard error it was given: a pipe would not end.
    const log = openSync(join(folder, "run.log"), "w");
    const args = ["--config", this.#config, "--root", this.#root, "run", "--detach", "--bundle", bundle, "bench"];
    const { status } = spawnSync(TSKATA, args, { stdio: ["ignore", log, log] });
    closeSync(log);
    if (status !== 0) throw new Error(readFileSync(join(folder, "run.log"), "utf8"));
  }

  /** Milliseconds from the machine's start to the end of a span. */
  spans(): (name: string) => number {
    const lines = readFileSync(join(this.#root, "bench/pod/spans.jsonl"), "utf8").trim().split("\n");
    const spans = lines.map((line) => JSON.parse(line) as Span);
    const find = (name: string): Span => {
      const found = spans.find((span) => span.name === name);
      if (found === undefined) throw new Error(`no span "${name}"`);
      return found;
    };
    const start = BigInt(find("hypervisor start").startNs);
    return (name) => Number(BigInt(find(name).endNs) - start) / 1e6;
  }

  /** MiB that the pod's sandbox and hypervisor have for themselves; guest memory and the image, which pods share, apart. */
  overhead(): { overhead: number; guest: number } {
    const { pod } = JSON.parse(readFileSync(join(this.#root, "bench/state.json"), "utf8")) as { pod: { sandboxPid: number } };
    let [overhead, guest] = [0, 0];
    for (const pid of family(pod.sandboxPid)) {
      for (const mapping of readFileSync(`/proc/${pid}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
        const size = kib(mapping, "Size");
        const own = kib(mapping, "Private_Clean") + kib(mapping, "Private_Dirty");
        // The pod has 512 + 256 MiB; nothing else is that large and touched.
        if (size >= 700 * 1024 && size <= 800 * 1024) guest = Math.max(guest, kib(mapping, "Rss"));
        else if (!mapping.includes("/image.erofs")) overhead += own;
      }
    }
    return { overhead: overhead / 1024, guest: guest / 1024 };
  }

  exits(): string {
    const log = readFileSync(join(this.#root, "bench/pod/sandbox.log"), "utf8");
    return log.split("\n").find((line) => line.includes('"exits"')) ?? "";
  }

  get driver(): Driver {
    return this.#driver;
  }
}

function kib(mapping: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(mapping)?.[1] ?? 0);
}

/** KVM's own counters of the machines that run now. */
function kvmCounters(): Record<string, number> {
  const base = "/sys/kernel/debug/kvm";
  if (!existsSync(base)) spawnSync("mount", ["-t", "debugfs", "none", "/sys/kernel/debug"]);
  if (!existsSync(base)) return {};
  const machine = readdirSync(base).find((name) => /^\d+-\d+$/.test(name));
  if (machine === undefined) return {};
  const names = ["exits", "pf_fixed", "io_exits", "mmio_exits", "halt_exits", "irq_exits", "signal_exits", "irq_injections", "insn_emulation", "fpu_reload"];
  return Object.fromEntries(
    names.flatMap((name) => {
      const file = join(base, machine, name);
      return existsSync(file) ? [[name, Number(readFileSync(file, "utf8"))] as const] : [];
    }),
  );
}

function bundle(): string {
  const path = join(folder, "bundle");
  sleepingBundle(path, (spec) => {
    spec.linux.resources = { memory: { limit: 512 * 2 ** 20 } };
  });
  writeFileSync(join(path, "rootfs/data"), Buffer.alloc(DATA_MIB * 2 ** 20, 7));
  return path;
}

const DATA_MIB = 64;

function measurePod(pod: Pod, path: string): void {
  pod.start(path);
  const at = pod.spans();
  note("VMM start to init, of a pod (ms)", pod.driver, at("guest kernel"));
  note("VMM start to the agent's answer (ms)", pod.driver, at("agent answers"));
  const { overhead, guest } = pod.overhead();
  note("memory of VMM and sandbox, without the guest's (MiB)", pod.driver, overhead);
  note("memory of the guest (MiB)", pod.driver, guest);
  for (const [name, count] of Object.entries(kvmCounters())) note(`KVM ${name} to the agent's answer`, pod.driver, count);
  note(
    "exec true (ms)",
    pod.driver,
    timed(() => pod.run(["exec", "bench", "true"])),
  );
  note("fs: first read of a file (MiB/s)", pod.driver, copied(pod, "dd if=/data of=/dev/null bs=1M", "ignore"));
  note("vsock: zeroes to standard output (MiB/s)", pod.driver, copied(pod, `dd if=/dev/zero bs=64k count=${DATA_MIB * 16}`, "pipe"));
  const exits = pod.exits();
  pod.run(["delete", "--force", "bench"]);
  if (pod.driver === "kvm") lastExits = exits;
}

/** MiB/s of a copy by the guest's clock, to 10 ms: an exec takes longer than the copy. */
function copied(pod: Pod, command: string, stdout: "ignore" | "pipe"): number {
  const clock = "cut -d ' ' -f 1 /proc/uptime >&2";
  const told = pod.run(["exec", "bench", "sh", "-c", `${clock}; ${command} 2> /dev/null; ${clock}`], stdout);
  const [from, to] = told.trim().split("\n").map(Number);
  if (from === undefined || to === undefined || !(to >= from)) throw new Error(`not two times: ${told}`);
  return DATA_MIB / Math.max(to - from, 0.01);
}

let lastExits = "";

function timed(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

// -- the run -------------------------------------------------------------------------------------------------------------------

const turns = Number(process.argv[2] ?? 10);
const podTurns = Number(process.argv[3] ?? turns);
// A machine that is waited for keeps no event loop alive.
setInterval(() => {}, 60_000);
try {
  process.chdir(folder);
  mkdirSync("shared");
  const [kernel, image] = [join(distFolder, "guest/vmlinux"), join(distFolder, "guest/image.erofs")];
  const [faulting, restarting] = [faultingKernel(), scriptedGuest(folder, "restarting", "exec reboot -f")];
  for (let turn = 0; turn < turns; ++turn) {
    for (const driver of DRIVERS) {
      note("VMM start to the kernel's first instruction (ms)", driver, await lifetime(driver, faulting, image));
      note("VMM start to init, and restart (ms)", driver, await lifetime(driver, kernel, restarting));
    }
  }
  const path = bundle();
  const pods = DRIVERS.map((driver) => new Pod(driver));
  const lost: string[] = [];
  for (let turn = 0; turn < podTurns; ++turn) {
    for (const pod of pods) {
      try {
        measurePod(pod, path);
      } catch (error) {
        lost.push(`turn ${turn} of ${pod.driver}: ${String(error)}`);
        process.stderr.write(`lost: ${lost.at(-1)}\n`);
        pod.run(["delete", "--force", "bench"]);
      }
    }
  }
  tell();
  for (const line of lost) print(`lost: ${line}`);
  print(`exits to our VMM until the agent's answer: ${lastExits}`);
} finally {
  process.chdir("/");
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
