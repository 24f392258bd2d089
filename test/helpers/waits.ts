/** Waiting for time to pass, or for something to be so. */
import { hangLimitMs } from "./tskata.ts";

export async function after(milliseconds: number): Promise<void> {
  await new Promise((wake) => setTimeout(wake, milliseconds));
}

export async function until(done: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + hangLimitMs; !done(); await after(20)) if (Date.now() > end) throw new Error(`never: ${what}`);
}
