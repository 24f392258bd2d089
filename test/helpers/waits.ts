/** Waiting for something to be so. */
import { setTimeout as after } from "node:timers/promises";
import { hangLimitMs } from "./tskata.ts";

export async function until(done: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + hangLimitMs; !done(); await after(20)) if (Date.now() > end) throw new Error(`never: ${what}`);
}
