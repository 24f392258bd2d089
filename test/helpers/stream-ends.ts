/**
 * The two ends of one stream, each to be stopped and killed by itself: on the host the program of fixtures/pattern.c, the other end of whose pipe or terminal a
 * container's process has, the same program. Both keep in a file what has passed them, so that also who is killed has told.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { native } from "../../src/native.ts";
import { WATCHER } from "./census.ts";
import { bundleOf, createOf, execOf, type GuestProgram, PATTERN, type StreamCase, withCommand } from "./streams.ts";
import { hangLimitMs, type Scratch } from "./tskata.ts";
import { until } from "./waits.ts";

/** Programs of test/fixtures on the host. */
export interface Programs {
  readonly pattern: string;
  readonly reap: string;
}

export interface EndsCase extends Pick<StreamCase, "stream" | "verb"> {
  readonly id: string;
  readonly bytes: number;
  /** The host's end stands still (SIGSTOP) until it gets SIGCONT. */
  readonly held?: boolean;
}

/** What one end has said. */
export interface Told {
  /** Bytes of the pattern, all as they should be, that it has written or read; whoever was killed may have had up to a MiB more. */
  readonly bytes: number;
  /** "so far", "short", "whole", "differs at byte"; "" before the first MiB. */
  readonly verdict: string;
}

const SEED = 7;

/** Else it reads. */
export function guestWrites({ stream }: Pick<EndsCase, "stream">): boolean {
  return stream !== "stdin" && stream !== "terminal in";
}

function isTerminal({ stream }: EndsCase): boolean {
  return stream.startsWith("terminal");
}

function numbers({ bytes }: EndsCase): string[] {
  return [String(SEED), String(bytes)];
}

function toldFile({ id }: EndsCase): string {
  return `/told-${id}`;
}

function guestProgram(it: EndsCase): GuestProgram {
  return {
    args: [PATTERN, guestWrites(it) ? "write" : "check", ...numbers(it), ...(it.stream === "stderr" ? ["2"] : [])],
    env: [`TOLD=${toldFile(it)}`, ...(isTerminal(it) ? ["RAW=1"] : [])],
  };
}

export class Ends {
  readonly host: Ended;
  /** Ends as the container's process, as an engine's shim sees that. */
  readonly shim: Ended;
  readonly #hostFile: string;
  /** There from the guest's end's start on. */
  readonly guestFile: string;

  private constructor(host: Ended, shim: Ended, hostFile: string, guestFile: string) {
    this.host = host;
    this.shim = shim;
    this.#hostFile = hostFile;
    this.guestFile = guestFile;
  }

  static async start(scratch: Scratch, pod: string, programs: Programs, it: EndsCase): Promise<Ends> {
    const socket = isTerminal(it) ? join(scratch.folder, `${it.id}.sock`) : undefined;
    const flags = socket === undefined ? [] : ["--console-socket", socket];
    const guest = guestProgram(it);
    const runs = it.verb === "exec" ? execOf(pod, guest, flags) : await createOf(scratch, pod, it.id, guest, flags);
    const [readEnd, writeEnd] = native().pipe();
    const log = openSync(join(scratch.folder, `${it.id}.log`), "w");
    try {
      const hostFile = join(scratch.folder, `${it.id}.host`);
      const host = spawn(programs.pattern, [guestWrites(it) ? "check" : "write", ...numbers(it), ...(socket === undefined ? [] : [`console:${socket}`])], {
        env: { TOLD: hostFile, ...(it.held === true ? { HOLD: "1" } : {}), ...(it.stream === "terminal in" ? { READY: "1" } : {}) },
        stdio: guestWrites(it) ? [readEnd, log, log] : ["ignore", writeEnd, log],
      });
      if (socket !== undefined) await until(() => existsSync(socket), "the host's end waits for its terminal");
      const shim = spawn(programs.reap, ["bash", "-c", withCommand(scratch, runs("<&0"))], {
        env: scratch.environment(),
        stdio: [it.stream === "stdin" ? readEnd : "ignore", it.stream === "stdout" ? writeEnd : log, it.stream === "stderr" ? writeEnd : log],
      });
      const rootfs = join(scratch.folder, it.verb === "exec" ? "bundle-0" : bundleOf(it.id), "rootfs");
      return new Ends(new Ended(host), new Ended(shim), hostFile, join(rootfs, toldFile(it)));
    } finally {
      for (const fd of [readEnd, writeEnd, log]) closeSync(fd);
    }
  }

  get hostTold(): Told {
    return told(this.#hostFile);
  }

  /** Once it has ended: what it has written is the host's by then. */
  get guestTold(): Told {
    return told(this.guestFile);
  }

  /** For tests that fail midway. */
  kill(): void {
    this.host.child.kill("SIGKILL");
    this.shim.child.kill("SIGKILL");
  }
}

function told(file: string): Told {
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  // A line that is only half there is of somebody who was killed while he wrote it.
  const line =
    text
      .slice(0, text.lastIndexOf("\n") + 1)
      .trimEnd()
      .split("\n")
      .at(-1) ?? "";
  const [, verdict = "", bytes = "0"] = /^(\D+?):? (\d+)/.exec(line) ?? [];
  return { bytes: Number(bytes), verdict };
}

/** A process and its end, which may be long before somebody asks. */
class Ended {
  readonly child: ChildProcess;
  readonly #end: Promise<number | string>;

  constructor(child: ChildProcess) {
    this.child = child;
    this.#end = new Promise((done) => child.once("exit", (code, signal) => done(code ?? signal ?? "")));
  }

  get over(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Its exit code, or its signal's name. */
  async end(): Promise<number | string> {
    const hangs = after(hangLimitMs, "still runs", { ref: false });
    return await Promise.race([this.#end, hangs]);
  }
}

/** Waits in the guest, and kills the program there as soon as it is asked to. */
export async function guestKiller(scratch: Scratch): Promise<() => Promise<void>> {
  const child = scratch.spawn(["exec", WATCHER, "sh", "-c", "pid=$(pidof pattern) && echo ready && read go && kill -9 $pid"]);
  const ended = new Promise<unknown>((done) => child.once("close", done));
  const ready = await Promise.race([new Promise((done) => child.stdout?.once("data", done)), ended]);
  if (!Buffer.isBuffer(ready)) throw new Error("the program does not run in the guest");
  return async () => {
    child.stdin?.end("go\n");
    await ended; // 1, where the other end's death was faster
  };
}

/** What runs in the pod, of all its containers: everything but the kernel's own threads. */
export async function guestProcesses(scratch: Scratch): Promise<string[]> {
  const lines = (await scratch.sh(WATCHER, "ps -o args")).split("\n");
  return lines.filter((line) => !line.startsWith("[") || line === "[pattern]").sort();
}
