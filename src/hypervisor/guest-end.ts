/** Why a guest has ended, from what the driver saw and what the guest's console says last: the same words whatever the driver. */
import { KERNEL_PANIC } from "../base/log-tail.ts";

const PANIC = new RegExp(`${KERNEL_PANIC}: (.{0,200})`, "g");
const INIT_KILLED = /^Attempted to kill init! exitcode=0x([0-9a-f]{8})/;

/** A panic restarts the machine, so of itself a driver sees no more than that. The console is the guest's to write: words, not facts. */
export function guestEnd(seen: string, console: string): string {
  const panic = [...console.matchAll(PANIC)].at(-1)?.[1]?.trim();
  if (panic === undefined) return seen;
  const init = INIT_KILLED.exec(panic)?.[1];
  return init === undefined ? `the guest kernel panicked: ${panic}` : `the agent in the guest ${initEnd(Number.parseInt(init, 16))}`;
}

/** A wait status: the signal's number below, the exit code above. */
function initEnd(status: number): string {
  const signal = status & 0x7f;
  return signal === 0 ? `exited with ${(status >>> 8) & 0xff}` : `was killed by signal ${signal}`;
}
