/** One process the host asked for: a container's init or one exec'ed in it. */
import { TskataError } from "../../src/base/errors.ts";
import { type LaunchedProcess, type LaunchFailure, native } from "../../src/native.ts";
import type { Stdio } from "../../src/protocols/generated/agent.ts";
import type { Reaper } from "../init/reaper.ts";
import { type OutputCounts, type ProcessStdio, StdioPreparation } from "../io/stdio.ts";
import type { Streams } from "../io/streams.ts";
import { encodePlan, type Plan } from "./plan.ts";

export interface ProcessEnd extends OutputCounts {
  /** As waitpid(2) gives it. */
  readonly waitStatus: number;
}

export interface Surroundings {
  readonly launcher: string;
  readonly reaper: Reaper;
  readonly streams: Streams;
}

/** What runc puts before a failure of its init. */
const INIT_FAILURE = "unable to start container process: error during container init: ";

export class GuestProcess {
  readonly pid: number;
  /** Resolves when it has ended and its output has been read to the last byte it wrote. */
  readonly ended: Promise<ProcessEnd>;
  /** Resolves with the wait status as soon as it is dead. */
  readonly exited: Promise<number>;
  readonly #launched: LaunchedProcess;
  readonly #stdio: ProcessStdio;
  #alive = true;

  private constructor(launched: LaunchedProcess, stdio: ProcessStdio, exited: Promise<number>) {
    this.pid = launched.pid;
    this.#launched = launched;
    this.#stdio = stdio;
    this.exited = exited.then((status) => {
      this.#alive = false;
      return status;
    });
    this.ended = this.exited.then(async (waitStatus) => ({ waitStatus, ...(await stdio.drain()) }));
  }

  /** Launches it up to its execve, where it waits for `release`; one that `goes` has it behind it. */
  static async launch(around: Surroundings, plan: Plan, stdioIds: Stdio | undefined, goes = false): Promise<GuestProcess> {
    const stdio = await StdioPreparation.begin(around.streams, stdioIds, plan.terminal);
    try {
      const bytes = encodePlan(plan);
      const { launched, exited } = await around.reaper.launching(async (exitOf) => {
        const process = await native().launch({ launcher: around.launcher, plan: bytes, stdio: stdio.child, goes });
        return { launched: process, exited: exitOf(process.pid) };
      });
      return new GuestProcess(launched, stdio.connect(launched.terminal), exited);
    } catch (error) {
      stdio.close();
      throw asTskataError(error);
    }
  }

  async release(): Promise<void> {
    try {
      await this.#launched.release();
    } catch (error) {
      throw asTskataError(error);
    }
  }

  get alive(): boolean {
    return this.#alive;
  }

  signal(signal: number): void {
    if (!this.#alive) throw new TskataError("wrong-state", "process already finished");
    native().kill(this.pid, signal);
  }

  resize(rows: number, columns: number): void {
    if (!this.#stdio.resize(rows, columns) && this.#alive) throw new TskataError("invalid", "the process has no terminal");
  }

  closeStdin(): void {
    this.#stdio.closeStdin();
  }

  /** It must be dead or dying: its streams end even if some process outside still holds their other ends. */
  closeStreams(): void {
    this.#stdio.close();
  }
}

function asTskataError(error: unknown): unknown {
  if (!isLaunchFailure(error)) return error;
  return new TskataError("launch", `${INIT_FAILURE}${error.message}`, { cause: undefined });
}

function isLaunchFailure(error: unknown): error is LaunchFailure {
  return error instanceof Error && "step" in error && typeof error.step === "string";
}
