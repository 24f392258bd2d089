/** The agent's log: JSON lines on the console, which the host keeps (`tskata logs --agent`). */
import { writeSync } from "node:fs";

const LEVELS = ["trace", "debug", "info", "warn", "error"] as const;
export type Level = (typeof LEVELS)[number];

let least: number = LEVELS.indexOf("info");

export function setLogLevel(name: string): void {
  const index = (LEVELS as readonly string[]).indexOf(name);
  if (index >= 0) least = index;
}

export function log(level: Level, message: string, fields: Readonly<Record<string, unknown>> = {}): void {
  if (LEVELS.indexOf(level) < least) return;
  try {
    writeSync(1, `${JSON.stringify({ level, agent: message, ...fields })}\n`);
  } catch {
    // The console is full or gone: nowhere left to tell it.
  }
}
