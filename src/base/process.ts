/** Host processes by pid and start time: a pid alone may be reused by another process at any moment. */
import { readdirSync, readFileSync } from "node:fs";

export interface ProcessRef {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks after boot. */
  readonly startTime: number;
}

export interface ProcessFacts extends ProcessRef {
  /** One letter as in proc(5): R S D Z T … */
  readonly state: string;
  readonly parent: number;
  readonly session: number;
}

/** What /proc says of a pid, or undefined when there is no such process. */
export function processFacts(pid: number): ProcessFacts | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The command name in parentheses may hold anything, spaces and parentheses too: fields start after the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    pid,
    state: fields[0] ?? "X",
    parent: Number(fields[1]),
    session: Number(fields[3]),
    startTime: Number(fields[19]),
  };
}

/** Names a process that runs now. */
export function processRef(pid: number): ProcessRef | undefined {
  const facts = processFacts(pid);
  return facts === undefined ? undefined : { pid, startTime: facts.startTime };
}

/** Whether the process still runs; a zombie has ended. */
export function isAlive(ref: ProcessRef | undefined): boolean {
  if (ref === undefined) return false;
  const facts = processFacts(ref.pid);
  return facts !== undefined && facts.startTime === ref.startTime && facts.state !== "Z" && facts.state !== "X";
}

/** Sends a signal to exactly this process; false when it is gone. */
export function signalProcess(ref: ProcessRef, signal: NodeJS.Signals | number): boolean {
  if (!isAlive(ref)) return false;
  try {
    process.kill(ref.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** Waits until the process has ended; false when it has not by then. */
export async function waitForEnd(ref: ProcessRef, timeoutMs: number): Promise<boolean> {
  const end = Date.now() + timeoutMs;
  for (let pause = 1; isAlive(ref); pause = Math.min(pause * 2, 50)) {
    if (Date.now() >= end) return false;
    await new Promise((wake) => setTimeout(wake, pause));
  }
  return true;
}

/** Every pid on the host. */
export function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}
