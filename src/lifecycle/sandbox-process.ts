/**
 * Starts a pod's sandbox process and waits for it.
 *
 *   command line ── spawn ──► tskata-jail: joins the cgroup, own namespaces, own root
 *                              └─ clone, as the command line's child ──► number 1 of its pid namespace
 *                                                                         └─ execve ──► node sandbox.cjs, working folder <pod>
 *
 * By descriptor 3 tskata-jail tells which process that is ("pid N"), then the sandbox how its start went (a line of JSON). From the first
 * on trees can be placed in its mount namespace; the machine boots meanwhile.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import * as z from "zod/mini";
import { within } from "../base/deadline.ts";
import { errorChain, TskataError } from "../base/errors.ts";
import { type FailureCode, FailureError, isFailureCode } from "../base/failures.ts";
import { logTail, plainText } from "../base/log-tail.ts";
import { type Installation, podPaths } from "../base/paths.ts";
import { type ProcessRef, processRef, signalProcess, waitForEnd, waitStatusOf } from "../base/process.ts";
import { signalName } from "../base/signals.ts";
import type { PodConfig } from "../control/pod-config.ts";
import { jailViews } from "../host/jail.ts";
import { FAULT_VARIABLE } from "../telemetry/fault.ts";

/** What it says is shown: text of some length, and no more. */
const text = z.pipe(
  z.string(),
  z.transform((said) => plainText(said).slice(0, MOST_TEXT)),
);
const readySchema = z.union([
  z.object({ ok: z.literal(true) }),
  z.object({
    ok: z.literal(false),
    error: z.object({
      failure: z.string().check(z.refine(isFailureCode)),
      message: text,
      machine: z.optional(text),
      phase: z.optional(z.object({ name: text, seconds: z.number() })),
    }),
  }),
]);

/** node would let what is short-lived have 48 MiB before it collects it; a pod's process has little to do, and some thousand execs fill that. */
const YOUNG_OBJECTS = "--max-semi-space-size=2";
const MOST_TEXT = 2000;
const KILL_WAIT_MS = 5000;
/** Its own limit comes first and knows more; this one is for a process that is stopped or hangs. */
const GRACE_MS = 5000;

export interface SandboxProcess {
  readonly ref: ProcessRef;
  /** Resolves once the machine runs and its agent answers; rejects with why not. The time is what the process itself has for it. */
  ready(timeoutMs: number): Promise<void>;
  /** Ends it and what it started, now. */
  kill(): Promise<void>;
}

/** Resolves once its mount namespace stands. */
export async function startSandbox(files: Installation, podFolder: string, cgroups: readonly string[], pod: PodConfig): Promise<SandboxProcess> {
  const paths = podPaths(podFolder);
  const args = [
    ...["sandbox", "--tell", "3", "--keep-fd", "3", "--shared", paths.shared, "--chdir", podFolder, "--seccomp", pod.seccomp],
    ...cgroups.flatMap((folder) => ["--cgroup-procs", join(folder, "cgroup.procs")]),
    ...jailViews(files, pod, podFolder),
    // SIGUSR1 would open a debugger; and the thread that waits for it blocks the signal by which the jail closes.
    ...["--", files.node, "--disable-sigusr1", YOUNG_OBJECTS, files.sandbox],
  ];
  const log = openSync(paths.sandboxErrors, "a", 0o600);
  let jail: ChildProcess;
  try {
    jail = spawn(files.jail, args, { cwd: "/", detached: true, stdio: ["ignore", log, log, "pipe"], env: environment() });
  } finally {
    closeSync(log);
  }
  const exited = new Promise<string>((done) => {
    jail.once("error", (error) => done(`could not be started: ${error.message}`));
    jail.once("exit", (code, signal) => done(signal === null ? `exited with ${code}` : `was killed by ${signal}`));
  });
  const died = async (): Promise<FailureError> => new FailureError("sandbox-died", `the jail of the sandbox process ${await exited}${lastWords(podFolder)}`);
  if (jail.pid === undefined) throw await died(); // and it need not have its pipes
  const pipe = new ReadyPipe(jail.stdio[3] as Readable);
  const pid = await pipe.pid;
  const ref = pid === undefined ? undefined : processRef(pid);
  if (ref === undefined) throw await died();
  return new Started(ref, pipe, podFolder);
}

/** Nothing of the caller's environment reaches the sandbox but where tskata's own parts are, and a fault point that tests select. */
function environment(): NodeJS.ProcessEnv {
  const kept = ["TSKATA_DIST", "TSKATA_ADDON", "TZ", "NODE_COMPILE_CACHE", FAULT_VARIABLE];
  const entries = kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]]));
  return { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ...Object.fromEntries(entries) };
}

/** The two lines of descriptor 3. */
class ReadyPipe {
  /** Undefined when the jail ended without one. */
  readonly pid: Promise<number | undefined>;
  /** What follows, to the end. */
  readonly answer: Promise<string>;
  readonly #stream: Readable;

  constructor(stream: Readable) {
    this.#stream = stream;
    let text = "";
    let tellPid: (pid: number | undefined) => void = () => {};
    this.pid = new Promise((tell) => {
      tellPid = tell;
    });
    this.answer = new Promise((tell) => {
      stream.on("data", (part) => {
        text += String(part);
        const pid = /^pid (\d+)\n/.exec(text)?.[1];
        if (pid !== undefined) tellPid(Number(pid));
      });
      stream.on("close", () => {
        tellPid(undefined);
        tell(text.slice(text.indexOf("\n") + 1));
      });
      stream.on("error", () => {}); // "close" follows
    });
  }

  close(): void {
    this.#stream.destroy();
  }
}

class Started implements SandboxProcess {
  readonly ref: ProcessRef;
  readonly #pipe: ReadyPipe;
  readonly #folder: string;

  constructor(ref: ProcessRef, pipe: ReadyPipe, folder: string) {
    this.ref = ref;
    this.#pipe = pipe;
    this.#folder = folder;
  }

  async ready(timeoutMs: number): Promise<void> {
    const late = (): Error => new FailureError("time-out", `the sandbox process has not told in ${timeoutMs / 1000} s how the start went`);
    try {
      await this.#read(await within(timeoutMs + GRACE_MS, this.#pipe.answer, late));
    } finally {
      this.#pipe.close();
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
    if (parsed.data.ok) return;
    const { failure, message, machine, phase } = parsed.data.error;
    throw new FailureError(failure as FailureCode, message, { machine, phase });
  }

  /** The error for a sandbox that ended without a word. It is our child, and nobody has waited for it. */
  async #death(): Promise<FailureError> {
    await waitForEnd(this.ref, KILL_WAIT_MS);
    const how = endInWords(waitStatusOf(this.ref));
    return new FailureError("sandbox-died", `the sandbox process ${how} before the virtual machine was ready${lastWords(this.#folder)}`);
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

/** A wait status as a sentence's predicate. */
export function endInWords(status: number | undefined): string {
  if (status === undefined) return "ended";
  const signal = signalName(status & 0x7f);
  if (signal === undefined) return `exited with ${status >> 8}`;
  const why = signal === "SIGSYS" ? " by its jail, for a system call that no list allows (sandbox.seccomp, docs/security.md)," : "";
  return `was killed by ${signal}${why}`;
}

/** What it wrote last, when that is a line. */
function lastWords(folder: string): string {
  const said = logTail(podPaths(folder).sandboxErrors, 1);
  return said === "" ? "" : `: ${said}`;
}
