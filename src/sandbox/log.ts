/** The sandbox's log: pino's JSON lines in the pod's folder. */
import { type Logger, pino } from "pino";

export type Log = Logger;

/** Lines that wait for room on a full disk. */
const MOST_WAITING_BYTES = 64 * 1024;

/** Synchronous: the last line before a crash is the one that matters. */
export function openLog(level: string): Log {
  const file = pino.destination({ dest: "sandbox.log", sync: true, mode: 0o600, maxLength: MOST_WAITING_BYTES });
  file.on("error", () => {}); // a full disk loses lines, and not the pod
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, file);
}
