/** Drives the built `tskata` command for VM tests: one scratch root a test file, bundles made by hand, and a check that nothing is left. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as after } from "node:timers/promises";
import { busyboxRootfs } from "../../scripts/lib/busybox.ts";
import { readState } from "../../src/oci/state-file.ts";
import { type HostState, hostDifference, hostState } from "./host.ts";

export const repository = resolve(import.meta.dirname, "../..");
export const binary = process.env["TSKATA_BIN"] ?? join(repository, "dist/bin/tskata");

/** Long enough for an emulated machine under load, or for one in the testbed; no test asserts a time. */
export const hangLimitMs = process.env["TSKATA_TESTBED"] === "1" ? 600_000 : 180_000;

const SETTLE_MS = 2000;

/** Names the hypervisor driver that all commands of the VM tests use; empty: the configuration's own choice. */
const testDriver = process.env["TSKATA_TEST_DRIVER"] ?? "";

/**
 * How much less of the same is done in the testbed, where a machine is emulated in an emulated one; TSKATA_TEST_FULL=1: all of it there,
 * too. What is tested stays the same, its amount does not.
 */
export const amount = process.env["TSKATA_TESTBED"] === "1" && process.env["TSKATA_TEST_FULL"] !== "1" ? 1 / 16 : 1;

let chosen: string | undefined;

/** The driver that pods of the tests have. Asked of the built command, so not before it is built. */
export function driver(): string {
  chosen ??= testDriver === "" ? chosenDriver() : testDriver;
  return chosen;
}

function chosenDriver(): string {
  const { stdout } = spawnSync(binary, ["check", "--format", "json"], { encoding: "utf8" });
  const { findings } = JSON.parse(stdout) as { findings: { name: string; detail: string }[] };
  return /^\w+/.exec(findings.find(({ name }) => name === "driver")?.detail ?? "")?.[0] ?? "";
}

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** It was killed for taking longer than it may. */
  timedOut: boolean;
}

export interface RunOptions {
  input?: string | Buffer;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  timeoutMs?: number;
}

export interface CreateRun {
  readonly timeoutMs?: number;
  /** A program and its arguments that run the command: prlimit, a shell. */
  readonly through?: readonly string[];
}

/** The parts of an OCI config that tests change; everything else is what `tskata spec` wrote. */
export interface Spec {
  process: {
    terminal?: boolean;
    user: { uid?: number; gid?: number; additionalGids?: number[]; umask?: number; username?: string };
    args: string[];
    env: string[];
    cwd: string;
    capabilities?: Record<string, string[]>;
    rlimits?: { type: string; hard: number; soft: number }[];
    noNewPrivileges?: boolean;
    consoleSize?: { height: number; width: number };
    oomScoreAdj?: number;
    scheduler?: { policy: string; nice?: number; priority?: number; flags?: string[]; runtime?: number; deadline?: number; period?: number };
    ioPriority?: { class: string; priority?: number };
  };
  root: { path: string; readonly?: boolean };
  hostname?: string;
  domainname?: string;
  mounts: { destination: string; type?: string; source?: string; options?: string[] }[];
  annotations?: Record<string, string>;
  hooks?: Record<string, { path: string; args?: string[]; env?: string[]; timeout?: number }[]>;
  linux: {
    namespaces: { type: string; path?: string }[];
    resources?: Record<string, unknown>;
    uidMappings?: { containerID: number; hostID: number; size: number }[];
    gidMappings?: { containerID: number; hostID: number; size: number }[];
    seccomp?: unknown;
    maskedPaths?: string[];
    readonlyPaths?: string[];
    sysctl?: Record<string, string>;
    cgroupsPath?: string;
    devices?: unknown[];
    rootfsPropagation?: string;
    timeOffsets?: Record<string, { secs?: number; nanosecs?: number }>;
    personality?: { domain: string; flags?: string[] };
  };
}

/** What one test file uses: its folder, its `--root`, its containers. */
export class Scratch {
  readonly folder: string;
  readonly root: string;
  #bundles = 0;
  #creates = 0;
  /** TSKATA_CONFIG, unless a test gives one of its own. */
  readonly #env: Readonly<Record<string, string>>;
  readonly #children = new Set<ChildProcess>();
  readonly #before: HostState;

  constructor(name: string) {
    this.folder = mkdtempSync(join(tmpdir(), `tskata-${name}-`));
    this.root = join(this.folder, "root");
    mkdirSync(this.root);
    this.#env = testDriver === "" ? {} : { TSKATA_CONFIG: this.#driverConfig(testDriver) };
    this.#before = this.host();
  }

  /** A configuration of a test's own, for TSKATA_CONFIG: these sections, and the driver of all or another. */
  config(name: string, sections: string, driverName: string = testDriver === "" ? "auto" : testDriver): string {
    const file = join(this.folder, `${name}.toml`);
    writeFileSync(file, `${sections}\n[hypervisor]\ndriver = ${JSON.stringify(driverName)}\n`);
    return file;
  }

  #driverConfig(driver: string): string {
    const file = join(this.folder, "driver.toml");
    writeFileSync(file, `[hypervisor]\ndriver = ${JSON.stringify(driver)}\n`);
    return file;
  }

  /** The environment of every command; `own` is the test's. */
  environment(own: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    return { ...process.env, ...this.#env, ...own };
  }

  /** Runs `tskata --root <scratch> …` to its end. */
  async tskata(args: string[], options: RunOptions = {}): Promise<Outcome> {
    const child = this.spawn(args, options);
    return await outcomeOf(child, options);
  }

  /** As `tskata`, but a non-zero exit throws with everything that was printed. */
  async ok(args: string[], options: RunOptions = {}): Promise<string> {
    const outcome = await this.tskata(args, options);
    if (outcome.code !== 0) throw new Error(`tskata ${args.join(" ")}: ${describe(outcome)}\n${this.logs()}`);
    return outcome.stdout;
  }

  /** Starts `tskata --root <scratch> …` with pipes, for tests that talk to it while it runs. */
  spawn(args: string[], options: RunOptions = {}): ChildProcess {
    const child = spawn(binary, ["--root", this.root, ...args], {
      cwd: options.cwd ?? this.folder,
      env: this.environment(options.env),
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  /** Makes a bundle with `tskata spec` and the busybox root filesystem, `edit`ed; returns its folder. */
  async bundle(edit: (spec: Spec) => void = () => {}, name = `bundle-${this.#bundles++}`): Promise<string> {
    const folder = join(this.folder, name);
    mkdirSync(folder, { recursive: true });
    busyboxRootfs(join(folder, "rootfs"));
    await this.ok(["spec", "--bundle", folder]);
    const file = join(folder, "config.json");
    const spec = JSON.parse(readFileSync(file, "utf8")) as Spec;
    spec.process.terminal = false;
    spec.root.readonly = false;
    edit(spec);
    writeFileSync(file, JSON.stringify(spec));
    return folder;
  }

  /** One bundle for all who never need two at a time: with a config of its own each time, and a container that sleeps. */
  async sharedBundle(edit: (spec: Spec) => void = () => {}): Promise<string> {
    const folder = join(this.folder, "shared-bundle");
    const made = join(folder, "made.json");
    if (!existsSync(made)) {
      await this.bundle((spec) => {
        spec.process.args = ["sleep", "100000"];
      }, "shared-bundle");
      copyFileSync(join(folder, "config.json"), made);
    }
    const spec = JSON.parse(readFileSync(made, "utf8")) as Spec;
    edit(spec);
    writeFileSync(join(folder, "config.json"), JSON.stringify(spec));
    return folder;
  }

  /** Creates and starts a container that sleeps, for tests made of execs. */
  async running(id: string, edit: (spec: Spec) => void = () => {}, env: NodeJS.ProcessEnv = {}): Promise<string> {
    const bundle = await this.bundle((spec) => {
      spec.process.args = ["sleep", "100000"];
      edit(spec);
    });
    await this.create(id, bundle, [], env);
    await this.ok(["start", id]);
    return bundle;
  }

  /** `create` detached from our pipes: its stdio are files, as a caller's FIFOs would outlive the command. */
  async create(id: string, bundle: string, extra: string[] = [], env: NodeJS.ProcessEnv = {}): Promise<void> {
    const outcome = await this.tryCreate(id, bundle, extra, env);
    if (outcome.code !== 0) throw new Error(`tskata create ${id}: ${describe(outcome)}\n${this.logs()}`);
  }

  async tryCreate(
    id: string,
    bundle: string,
    extra: string[] = [],
    env: NodeJS.ProcessEnv = {},
    { timeoutMs, through = [] }: CreateRun = {},
  ): Promise<Outcome> {
    const log = join(this.folder, `create-${id.replaceAll("/", "_")}-${this.#creates++}.log`);
    const command = `exec "$0" "$@" </dev/null >"${join(this.folder, `${id.replaceAll("/", "_")}.out`)}" 2>"${log}"`;
    const words = [...through, binary, "--root", this.root, "create", ...extra, "--bundle", bundle, id];
    const child = spawn("/bin/sh", ["-c", command, ...words], { env: this.environment(env) });
    const outcome = await outcomeOf(child, timeoutMs === undefined ? {} : { timeoutMs });
    return { ...outcome, stderr: existsSync(log) ? readFileSync(log, "utf8") : "" };
  }

  /** What the container's init has printed (see `create`). */
  output(id: string): string {
    return readFileSync(join(this.folder, `${id}.out`), "utf8");
  }

  async exec(id: string, args: string[], options: RunOptions & { flags?: string[] } = {}): Promise<Outcome> {
    return await this.tskata(["exec", ...(options.flags ?? []), id, ...args], options);
  }

  /** Runs a shell line in a container and returns its trimmed output; a non-zero exit throws. */
  async sh(id: string, line: string): Promise<string> {
    const outcome = await this.exec(id, ["sh", "-c", line]);
    if (outcome.code !== 0) throw new Error(`exec ${id} ${line}: ${describe(outcome)}\n${this.logs()}`);
    return outcome.stdout.trim();
  }

  /** The pod of a container whose sandbox process has been started. */
  pod(id: string): { readonly folder: string; readonly sandboxPid: number } {
    const { folder, sandboxPid } = readState(this.root, id).pod;
    if (sandboxPid === undefined) throw new Error(`the pod of ${id} has no sandbox process`);
    return { folder, sandboxPid };
  }

  async state(id: string): Promise<{ status: string; pid: number; annotations?: Record<string, string>; [key: string]: unknown }> {
    return JSON.parse(await this.ok(["state", id])) as Awaited<ReturnType<Scratch["state"]>>;
  }

  async until(id: string, status: string): Promise<void> {
    const end = Date.now() + hangLimitMs;
    while ((await this.state(id)).status !== status) {
      if (Date.now() > end) throw new Error(`container ${id} is not ${status} after ${hangLimitMs} ms\n${this.logs()}`);
      await after(100);
    }
  }

  /** Tails of every log of every pod, for a failing test's message. */
  logs(): string {
    const parts: string[] = [];
    for (const id of existsSync(this.root) ? readdirSync(this.root) : []) {
      for (const name of ["console.log", "sandbox.log", "qemu.log"]) {
        const file = join(this.root, id, "pod", name);
        if (existsSync(file)) parts.push(`--- ${id} ${name}\n${readFileSync(file, "utf8").slice(-4000)}`);
      }
    }
    return parts.join("\n");
  }

  /** What stands on the host now, as far as it can be this scratch's. */
  host(): HostState {
    return hostState({ folder: this.folder, root: this.root, dist: dirname(dirname(binary)) });
  }

  /** What of this scratch still stands on the host that did not before it. */
  leftovers(before: HostState = this.#before): string[] {
    return hostDifference(before, this.host());
  }

  /** As leftovers, after the kernel has had a moment to take apart what died last. */
  async settledLeftovers(before: HostState = this.#before): Promise<string[]> {
    for (const end = performance.now() + SETTLE_MS; ; await after(50)) {
      const left = this.leftovers(before);
      if (left.length === 0 || performance.now() >= end) return left;
    }
  }

  /** Deletes what is left of every container, then the folder. Call from `test.after.always`. */
  async cleanUp(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    for (const id of existsSync(this.root) ? readdirSync(this.root) : []) {
      await this.tskata(["delete", "--force", id]).catch(() => {});
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function describe(outcome: Outcome): string {
  return `exit ${outcome.code ?? outcome.signal}\nstdout: ${outcome.stdout.slice(-2000)}\nstderr: ${outcome.stderr.slice(-2000)}`;
}

/** Collects what a child prints until its pipes close. */
export async function outcomeOf(child: ChildProcess, options: RunOptions): Promise<Outcome> {
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin?.on("error", () => {}); // a child that never reads its stdin is the test's business, not an uncaught error
  child.stdin?.end(options.input ?? "");
  let timedOut = false;
  const onLimit = (): void => {
    timedOut = true;
    child.kill("SIGKILL");
  };
  const timer = setTimeout(onLimit, options.timeoutMs ?? hangLimitMs);
  try {
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((done, fail) => {
      child.once("error", fail);
      child.once("close", (status, name) => done([status, name]));
    });
    return { code, signal, stdout: stdout(), stderr: stderr(), timedOut };
  } finally {
    clearTimeout(timer);
  }
}

function collect(stream: Readable | null): () => string {
  const parts: Buffer[] = [];
  stream?.on("data", (part: Buffer) => parts.push(part));
  return () => Buffer.concat(parts).toString("utf8");
}
