/**
 * Starts a pod's sandbox process and waits for it.
 *
 *   command line ── spawn, detached ──► tskata-jail: joins the cgroup, own mount namespace, tmpfs on <pod>/shared
 *                                        └─ execve ──► node sandbox.cjs, working folder <pod>, fd 3: the ready pipe
 *
 * Trees can be placed in its mount namespace as soon as the jail has become node; the machine boots meanwhile.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readlinkSync, realpathSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import * as z from "zod/mini";
import { errorChain, TskataError } from "../base/errors.ts";
import { type Installation, podPaths } from "../base/paths.ts";
import { isAlive, type ProcessRef, processRef, signalProcess, waitForEnd } from "../base/process.ts";
import { logTail } from "./pods.ts";

const readySchema = z.union([
  z.object({ ok: z.literal(true) }),
  z.object({ ok: z.literal(false), error: z.object({ code: z.string(), message: z.string() }) }),
]);

const KILL_WAIT_MS = 5000;

export interface SandboxProcess {
  readonly ref: ProcessRef;
  /** Resolves once its mount namespace stands. */
  jailed(): Promise<void>;
  /** Resolves once the machine runs and its agent answers; rejects with why not. */
  ready(timeoutMs: number): Promise<void>;
  /** Ends it and what it started, now. */
  kill(): Promise<void>;
}

export function startSandbox(files: Installation, podFolder: string, cgroups: readonly string[]): SandboxProcess {
  const paths = podPaths(podFolder);
  const args = [
    ...cgroups.flatMap((folder) => ["--cgroup-procs", join(folder, "cgroup.procs")]),
    ...["--shared", paths.shared, "--chdir", podFolder, "--keep-fd", "3", "--", files.node, files.sandbox],
  ];
  const log = openSync(join(podFolder, "sandbox.stderr"), "a", 0o600);
  let child: ChildProcess;
  try {
    child = spawn(files.jail, args, { cwd: "/", detached: true, stdio: ["ignore", log, log, "pipe"], env: environment() });
  } finally {
    closeSync(log);
  }
  return new Started(child, files, podFolder);
}

/** Nothing of the caller's environment reaches the sandbox but where tskata's own parts are. */
function environment(): NodeJS.ProcessEnv {
  const kept = ["TSKATA_DIST", "TSKATA_ADDON", "TZ", "NODE_COMPILE_CACHE"];
  const entries = kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]]));
  return { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ...Object.fromEntries(entries) };
}

class Started implements SandboxProcess {
  readonly ref: ProcessRef;
  readonly #child: ChildProcess;
  readonly #jail: string;
  readonly #folder: string;
  readonly #failed: Promise<never>;
  readonly #answer: Promise<string>;

  constructor(child: ChildProcess, files: Installation, folder: string) {
    this.#child = child;
    this.#jail = files.jail;
    this.#folder = folder;
    this.#failed = new Promise((_, fail) => {
      child.once("error", (error) => fail(new TskataError("unavailable", `start ${files.jail}`, { cause: error })));
    });
    this.#failed.catch(() => {}); // told by whoever waits
    this.#answer = readAll(child.stdio[3] as Readable);
    child.unref();
    const ref = child.pid === undefined ? undefined : processRef(child.pid);
    this.ref = ref ?? { pid: child.pid ?? -1, startTime: -1 };
  }

  async jailed(): Promise<void> {
    const jail = realpathSync(this.#jail);
    for (;;) {
      if (this.#child.pid === undefined) await this.#failed;
      const program = isAlive(this.ref) ? programOf(this.ref.pid) : undefined;
      if (program === undefined) throw await this.#death();
      if (program !== jail) return;
      await new Promise((wake) => setTimeout(wake, 1));
    }
  }

  async ready(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, fail) => {
      timer = setTimeout(() => {
        fail(new TskataError("unavailable", `the virtual machine is not ready after ${timeoutMs / 1000} s${this.#tails()}`));
      }, timeoutMs);
    });
    try {
      await this.#read(await Promise.race([this.#answer, this.#failed, late]));
    } finally {
      clearTimeout(timer);
      (this.#child.stdio[3] as Readable).destroy();
    }
  }

  async #read(answer: string): Promise<void> {
    if (answer.trim() === "") throw await this.#death();
    let value: unknown;
    try {
      value = JSON.parse(answer);
    } catch (error) {
      throw new TskataError("internal", "read the sandbox process's answer", { cause: error });
    }
    const parsed = readySchema.safeParse(value);
    if (!parsed.success) throw new TskataError("internal", "the sandbox process gave an answer that is none");
    if (!parsed.data.ok) throw new TskataError("unavailable", `${parsed.data.error.message}${this.#tails()}`);
  }

  /** The error for a sandbox that ended without a word. */
  async #death(): Promise<TskataError> {
    await waitForEnd(this.ref, KILL_WAIT_MS);
    const { exitCode, signalCode } = this.#child;
    const how = signalCode !== null ? `was killed by ${signalCode}` : `exited with ${exitCode ?? "an unknown status"}`;
    return new TskataError("unavailable", `the sandbox process ${how} before the virtual machine was ready${this.#tails()}`);
  }

  /** What a reader needs before the folder is rolled back. */
  #tails(): string {
    const paths = podPaths(this.#folder);
    const logs: [string, string][] = [
      ["sandbox", join(this.#folder, "sandbox.stderr")],
      ["hypervisor", paths.hypervisorLog],
      ["guest console", paths.consoleLog],
    ];
    return logs
      .map(([name, file]) => [name, logTail(file)] as const)
      .filter(([, tail]) => tail !== "")
      .map(([name, tail]) => `\nlast lines of the ${name}:\n${tail}`)
      .join("");
  }

  async kill(): Promise<void> {
    try {
      signalProcess(this.ref, "SIGKILL");
      await waitForEnd(this.ref, KILL_WAIT_MS);
    } catch (error) {
      throw new TskataError("internal", `kill the sandbox process ${this.ref.pid}: ${errorChain(error)}`);
    }
  }
}

function programOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, "");
  } catch {
    return undefined;
  }
}

async function readAll(stream: Readable): Promise<string> {
  let text = "";
  for await (const part of stream) text += String(part);
  return text;
}
