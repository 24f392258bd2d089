/** Host processes by pid and start time: a pid alone may be reused by another process at any moment. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

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
  const fields = statFields(pid);
  if (fields === undefined) return undefined;
  return {
    pid,
    state: fields[0] ?? "X",
    parent: Number(fields[1]),
    session: Number(fields[3]),
    startTime: startOf(fields),
  };
}

/** Fields of /proc/<pid>/stat from the third on. */
function statFields(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command name in parentheses may hold anything, spaces and parentheses too: fields start after the last one.
    return stat
      .slice(stat.lastIndexOf(")") + 2)
      .trimEnd()
      .split(" ");
  } catch {
    return undefined;
  }
}

let offsetTicks: number | undefined;

/** Field 22, as the host's own time namespace has it: the kernel tells start times in the reader's (time_namespaces(7)). */
function startOf(fields: readonly string[]): number {
  offsetTicks ??= boottimeOffset();
  return Number(fields[19]) - offsetTicks;
}

/** In ticks, which are hundredths of a second to user space. */
function boottimeOffset(): number {
  try {
    const [, seconds, nanoseconds] = /^boottime\s+(-?\d+)\s+(\d+)/m.exec(readFileSync("/proc/self/timens_offsets", "latin1")) ?? [];
    return seconds === undefined ? 0 : Number(seconds) * 100 + Math.floor(Number(nanoseconds) / 1e7);
  } catch {
    return 0; // a kernel without time namespaces
  }
}

/** PF_EXITING of <linux/sched.h>. */
const EXITING = 0x4;

/** Whether it is past its last instruction, a zombie or not: the first process of a pid namespace stays on until all the others in it are gone. */
export function isEnding(ref: ProcessRef): boolean {
  return !isAlive(ref) || (Number(statFields(ref.pid)?.[6]) & EXITING) !== 0;
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

/** How a child of ours has ended that nobody has waited for, as waitpid gives it: field 52 of its stat; undefined when it is gone. */
export function waitStatusOf(ref: ProcessRef): number | undefined {
  const stat = statFields(ref.pid);
  return stat?.[0] === "Z" && startOf(stat) === ref.startTime ? Number(stat[49]) : undefined;
}

/** A process's pid here from the one it has in the pid namespace of `member`; undefined when there is none. */
export function pidFromInside(member: number, inside: number): number | undefined {
  const space = pidNamespace(member);
  return space === undefined ? undefined : allPids().find((pid) => pidNamespace(pid) === space && innermostPid(pid) === inside);
}

function pidNamespace(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** "NSpid:" lists a process's pids from the reader's namespace down to its own. */
function innermostPid(pid: number): number | undefined {
  try {
    const line = /^NSpid:\s*(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return line === undefined ? undefined : Number(line.split(/\s+/).at(-1));
  } catch {
    return undefined;
  }
}

/** Waits until the process has ended; false when it has not by then. */
export async function waitForEnd(ref: ProcessRef, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs; // the wall clock may be set meanwhile
  for (let pause = 1; isAlive(ref); pause = Math.min(pause * 2, 50)) {
    if (performance.now() >= end) return false;
    await new Promise((wake) => setTimeout(wake, pause));
  }
  return true;
}

let knownBootId: string | undefined;

/** Names this run of the kernel: pids and start times of another one mean nothing now. */
export function bootId(): string {
  knownBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  return knownBootId;
}

/** Every pid on the host. */
export function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}
