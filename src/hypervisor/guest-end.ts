/** Why a guest has ended, from what the driver saw and what the guest's console says last: the same words whatever the driver. */
import { FailureError, STILL_RUNS } from "../base/failures.ts";
import { KERNEL_PANIC } from "../base/log-tail.ts";
import type { MachineEnd } from "./machine.ts";

const PANIC = new RegExp(`${KERNEL_PANIC}: (.{0,200})`, "g");
const INIT_KILLED = /^Attempted to kill init! exitcode=0x([0-9a-f]{8})/;
/** mm/oom_kill.c, init/initramfs.c and the like; V8, for node as process 1; libuv and libstdc++. Not: a container that came to its own limit. */
const NO_MEMORY =
  /System is deadlocked on memory|Out of memory(?! in hook)|(?<!Memory cgroup )out of memory|invoked oom-killer|page allocation failure|Failed to reserve (?:virtual )?memory|std::bad_alloc/;
/** fs/erofs tells of bytes that cannot be; init/do_mounts.c of a root that is none. */
const BAD_IMAGE = /erofs: \((?:device )?\S+\): (?!mounted)|Unable to mount root fs|Cannot open root device|EROFS-fs error/;
/** libc's words for EMFILE and ENFILE, and our transport's. */
const NO_DESCRIPTORS = /too many open files|no more may be open/i;

/** With less a guest kernel ends, or goes round in circles, before it can say so: measured, under both drivers. */
const LEAST_MEMORY_MIB = 64;

export interface GuestMachine {
  /** What runs the guest: for people. */
  readonly description: string;
  readonly memoryMib: number;
}

/**
 * A panic restarts the machine, so of itself a driver sees no more than that. `console` is its last lines, which the guest writes: words,
 * not facts.
 */
export function guestEnd(end: MachineEnd, console: string, machine: GuestMachine): FailureError {
  const told = { machine: `${end.what}; ${machine.description}` };
  if (end.by === "hypervisor") return hypervisorEnd(end.what, told);
  const panic = [...console.matchAll(PANIC)].at(-1)?.[1]?.trim();
  const how = panic === undefined ? end.what : sayPanic(panic);
  const starved = starvation(console, machine);
  if (starved !== undefined) return new FailureError("guest-out-of-memory", `${starved}: ${how}`, told);
  if (panic === undefined) return new FailureError("guest-restarted", `the virtual machine has ended: ${how}`, told);
  if (BAD_IMAGE.test(console)) return new FailureError("image-corrupt", `the guest cannot read its image: ${how}`, told);
  return new FailureError(INIT_KILLED.test(panic) ? "agent-crashed" : "kernel-panic", how, told);
}

function hypervisorEnd(what: string, told: { readonly machine: string }): FailureError {
  const message = `the virtual machine has ended: ${what}`;
  return NO_DESCRIPTORS.test(what) ? new FailureError("too-many-open-files", message) : new FailureError("hypervisor-failed", message, told);
}

/** The agent has had its time, and the machine still runs. */
export function guestSilence(seconds: number, console: string, machine: GuestMachine): FailureError {
  const what = `the agent in the guest has not answered in ${seconds} s`;
  const told = { machine: `${STILL_RUNS}; ${machine.description}` };
  const starved = starvation(console, machine);
  if (starved !== undefined) return new FailureError("guest-out-of-memory", `${starved}: ${what}`, told);
  return new FailureError("agent-silent", what, told);
}

function starvation(console: string, { memoryMib }: GuestMachine): string | undefined {
  if (NO_MEMORY.test(console)) return "the guest ran out of memory";
  return memoryMib < LEAST_MEMORY_MIB ? `the guest has ${memoryMib} MiB of memory, and needs ${LEAST_MEMORY_MIB}` : undefined;
}

function sayPanic(panic: string): string {
  const init = INIT_KILLED.exec(panic)?.[1];
  return init === undefined ? `the guest kernel panicked: ${panic}` : `the agent in the guest ${initEnd(Number.parseInt(init, 16))}`;
}

/** A wait status: the signal's number below, the exit code above. */
function initEnd(status: number): string {
  const signal = status & 0x7f;
  return signal === 0 ? `exited with ${(status >>> 8) & 0xff}` : `was killed by signal ${signal}`;
}
