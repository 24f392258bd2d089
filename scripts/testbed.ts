/**
 * The KVM testbed: a machine with a working /dev/kvm where the host has none. QEMU emulates an AMD CPU with SVM; in it Debian's
 * kernel runs one command over this host's own tree, so that all paths are the same. docs/testbed.md tells the whole of it.
 *
 *   npm run testbed -- [--memory MIB] [--vcpus N] [--timeout SECONDS] [--results DIR] [--env NAME=VALUE]… [--] CMD…
 */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Readable, Writable } from "node:stream";
import { parseArgs } from "node:util";
import { probeKvm } from "../src/host/kvm-probe.ts";
import { cacheFolder, repository, say } from "./lib/steps.ts";
import { type TestbedKernel, testbedKernel } from "./testbed/kernel.ts";
import { DESCRIPTORS, initramfs, type Machine, qemuArguments, shareArguments } from "./testbed/machine.ts";
import { MarkedStream } from "./testbed/marked-stream.ts";
import { testbedQemu } from "./testbed/qemu.ts";
import { dieWithUs, exited, startServer, tailOf } from "./testbed/servers.ts";

export interface TestbedOptions {
  readonly command: readonly string[];
  /** Default: the folder of this process. */
  readonly cwd?: string;
  /** Added to HOME, PATH and TSKATA_CACHE. */
  readonly env?: Readonly<Record<string, string>>;
  /** Folder of the host, writable in there as /results. */
  readonly results?: string;
  /** Taken from the host as it is touched. Default 6144. */
  readonly memoryMib?: number;
  /** Default 2. */
  readonly vcpus?: number;
  /** Of boot and command together. Default: none but for the boot's. */
  readonly timeoutMs?: number;
  /** Default: Debian's for cloud machines. */
  readonly kernel?: TestbedKernel;
  /** Default: emulation. "kvm" is a machine like it on a /dev/kvm that works, so one without. */
  readonly accelerator?: Machine["accelerator"];
  /** More trees: virtiofs tag to the socket of its server. The command mounts them. */
  readonly shares?: Readonly<Record<string, string>>;
  /** Further options of QEMU's. */
  readonly devices?: readonly string[];
  /** Default: those of this process. They are not ended. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
}

export interface TestbedOutcome {
  /** The command's, as a shell has it: 128 + n after signal n. */
  readonly status: number;
  /** From QEMU's start to the command's. */
  readonly bootMs: number;
  readonly commandMs: number;
}

export class TestbedTimeout extends Error {}

const DEFAULT_MEMORY_MIB = 6144;
const DEFAULT_VCPUS = 2;
/** Seen are 5 to 15 s; a machine that needs longer hangs. */
const BOOT_LIMIT_MS = 120_000;

/** Whether /dev/kvm of this host runs our machines: then no testbed is needed. */
export async function hostRunsKvm(): Promise<boolean> {
  return (await probeKvm()).works;
}

/** Boots the testbed, runs the command in it, passes on what it prints and returns its status. */
export async function runInTestbed(options: TestbedOptions): Promise<TestbedOutcome> {
  const kernel = options.kernel ?? (await testbedKernel());
  const qemu = await testbedQemu();
  if (options.results !== undefined) mkdirSync(options.results, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), "tskata-testbed-"));
  const children: ChildProcess[] = [];
  const removeFolder = (): void => rmSync(folder, { recursive: true, force: true });
  const end = (): void => {
    for (const child of children) child.kill("SIGKILL");
    removeFolder();
  };
  const interrupted = (signal: NodeJS.Signals): void => {
    end();
    process.exit(128 + constants.signals[signal]);
  };
  for (const signal of SIGNALS) process.once(signal, interrupted);
  try {
    const marker = randomBytes(16).toString("hex");
    const archive = join(folder, "initramfs");
    writeFileSync(archive, initramfs(kernel, { ...jobOf(options), marker }));
    const shares = { ...(await startShares(folder, options.results, children)), ...options.shares };
    const { memoryMib = DEFAULT_MEMORY_MIB, vcpus = DEFAULT_VCPUS, devices = [], accelerator = "tcg" } = options;
    const machine = { qemu, kernel: kernel.image, initramfs: archive, memoryMib, vcpus, accelerator, shares, devices };
    // Once booted all files are read and all sockets connected: then even our SIGKILL leaves nothing.
    return await runMachine(machine, { ...options, marker, children, booted: removeFolder });
  } finally {
    end();
    await Promise.all(children.map(exited)); // gigabytes are given back before we return
    for (const signal of SIGNALS) process.removeListener(signal, interrupted);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function jobOf({ command, cwd = process.cwd(), env = {}, results }: TestbedOptions) {
  if (command.length === 0) throw new Error("no command for the testbed");
  // The testbed has a /tmp of its own.
  const kept = [...new Set([repository, cacheFolder, resolve(cwd)])].filter((path) => path.startsWith("/tmp/") && existsSync(path));
  const path = process.env["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  const own = { HOME: "/root", PATH: path, TSKATA_CACHE: cacheFolder, TSKATA_TESTBED: "1" };
  return { command, cwd: resolve(cwd), env: { ...own, ...env }, results: results !== undefined, kept };
}

/** A file server a shared tree. */
async function startShares(folder: string, results: string | undefined, children: ChildProcess[]): Promise<Machine["shares"]> {
  const trees = { host: { source: "/", writable: false }, ...(results === undefined ? {} : { results: { source: resolve(results), writable: true } }) };
  const shares: Record<string, string> = {};
  for (const [tag, { source, writable }] of Object.entries(trees)) {
    const socket = join(folder, `${tag}.sock`);
    await startServer(shareArguments(socket, source, writable), socket, children);
    shares[tag] = socket;
  }
  return shares;
}

interface Run extends TestbedOptions {
  readonly marker: string;
  /** Ended by the caller. */
  readonly children: ChildProcess[];
  readonly booted: () => void;
}

async function runMachine(machine: Machine, options: Run): Promise<TestbedOutcome> {
  const { marker, children, booted, timeoutMs } = options;
  const started = performance.now();
  const qemu = dieWithUs([machine.qemu.program, ...machine.qemu.arguments, ...qemuArguments(machine)], ["ignore", "ignore", "pipe", "pipe", "pipe", "pipe"]);
  children.push(qemu);
  const complaints = tailOf(qemu.stderr);
  const console = tailOf(stream(qemu, DESCRIPTORS.console));
  const out = passOn(stream(qemu, DESCRIPTORS.stdout), marker, options.stdout ?? process.stdout);
  const err = passOn(stream(qemu, DESCRIPTORS.stderr), marker, options.stderr ?? process.stderr);
  const describe = (what: string): string => `the testbed ${what}\n--- console\n${console()}\n--- QEMU\n${withoutExpected(complaints())}`;

  let bootMs: number | undefined;
  return await new Promise<TestbedOutcome>((done, fail) => {
    const boot = setTimeout(() => fail(new Error(describe(`has not booted within ${BOOT_LIMIT_MS / 1000} s`))), BOOT_LIMIT_MS);
    const late = (): void => fail(new TestbedTimeout(`the testbed's command has not ended within ${(timeoutMs ?? 0) / 1000} s`));
    const limit = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs);
    const look = (): void => {
      if (bootMs === undefined && out.begun) {
        bootMs = performance.now() - started;
        clearTimeout(boot);
        booted();
      }
      const status = /^(\d+)\n/.exec(out.tail ?? "")?.[1];
      if (status === undefined || err.tail === undefined) return;
      done({ status: Number(status), bootMs: bootMs ?? 0, commandMs: performance.now() - started - (bootMs ?? 0) });
    };
    for (const descriptor of [DESCRIPTORS.stdout, DESCRIPTORS.stderr]) stream(qemu, descriptor).on("data", look);
    qemu.once("error", fail);
    qemu.once("close", (code, signal) => fail(new Error(describe(`ended before its command: ${signal ?? `exit ${code}`}`))));
    qemu.once("close", () => {
      clearTimeout(boot);
      clearTimeout(limit);
    });
  });
}

/** TCG names every feature of the CPU model that it lacks. */
function withoutExpected(complaints: string): string {
  return complaints
    .split("\n")
    .filter((line) => !line.includes("TCG doesn't support requested feature"))
    .join("\n");
}

/** Nothing is lost or kept in memory when the reader is slow: then the port, and at last the command, waits. */
function passOn(from: Readable, marker: string, to: Writable): MarkedStream {
  const marked = new MarkedStream(marker, (bytes) => {
    if (to.write(bytes)) return;
    from.pause();
    to.once("drain", () => from.resume());
  });
  from.on("data", (bytes: Buffer) => marked.push(bytes));
  from.on("error", () => {}); // QEMU's end is told by its process
  return marked;
}

function stream(child: ChildProcess, descriptor: number): Readable {
  const found = child.stdio[descriptor];
  if (found === null || found === undefined) throw new Error(`no pipe for descriptor ${descriptor}`);
  return found as Readable;
}

// -- command line ------------------------------------------------------------------------------------------------------------

export function parseCommandLine(args: readonly string[]): TestbedOptions & { quiet: boolean } {
  const { values, positionals } = parseArgs({
    args: withTerminator(args),
    allowPositionals: true,
    options: {
      memory: { type: "string" },
      vcpus: { type: "string" },
      timeout: { type: "string" },
      results: { type: "string" },
      env: { type: "string", multiple: true, default: [] },
      quiet: { type: "boolean", default: false },
    },
  });
  const number = (name: "memory" | "vcpus" | "timeout"): number | undefined => {
    if (values[name] === undefined) return undefined;
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be a whole number above 0, not "${values[name]}"`);
    return value;
  };
  const [memoryMib, vcpus, seconds] = [number("memory"), number("vcpus"), number("timeout")];
  if (positionals.length === 0) throw new Error("no command for the testbed");
  return {
    command: positionals,
    env: Object.fromEntries(values.env.map(parseVariable)),
    quiet: values.quiet,
    ...(values.results === undefined ? {} : { results: values.results }),
    ...(memoryMib === undefined ? {} : { memoryMib }),
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(seconds === undefined ? {} : { timeoutMs: seconds * 1000 }),
  };
}

/** The first word that is no option of ours begins the command, whose options are its own. */
function withTerminator(args: readonly string[]): string[] {
  const VALUED = /^--(memory|vcpus|timeout|results|env)$/;
  let at = 0;
  while (at < args.length && args[at]?.startsWith("--") && args[at] !== "--") at += VALUED.test(args[at] ?? "") ? 2 : 1;
  return args[at] === "--" ? [...args] : [...args.slice(0, at), "--", ...args.slice(at)];
}

function parseVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new Error(`--env takes NAME=VALUE, not "${text}"`);
  return [text.slice(0, at), text.slice(at + 1)];
}

async function main(): Promise<void> {
  const { quiet, ...options } = parseCommandLine(process.argv.slice(2));
  const { status, bootMs, commandMs } = await runInTestbed(options);
  if (!quiet) say(`testbed: booted in ${(bootMs / 1000).toFixed(1)} s, command ran ${(commandMs / 1000).toFixed(1)} s`);
  process.exitCode = status;
}

/** As timeout(1) has it. */
const TIMED_OUT = 124;

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
    process.exitCode = error instanceof TestbedTimeout ? TIMED_OUT : 1;
  }
}
