/** The sandbox's log: pino's JSON lines in the pod's folder. */
import { type Logger, pino } from "pino";

export type Log = Logger;

/** Synchronous: the last line before a crash is the one that matters. */
export function openLog(level: string): Log {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination({ dest: "sandbox.log", sync: true, mode: 0o600 }));
}
