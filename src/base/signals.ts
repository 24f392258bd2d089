/** Signals by number and name, as Linux on x86-64 has them; real-time ones as RTMIN+n and RTMAX-n. */
import { constants } from "node:os";
import { TskataError } from "./errors.ts";

const RTMIN = 34;
const RTMAX = 64;
/** Anything larger would be cut to another number on its way to kill(2). */
const INT_MAX = 0x7fff_ffff;

/** "9", "KILL", "SIGKILL", "sigkill", "RTMIN+3". An unknown name is runc's error; an odd number is left to the kernel. */
export function parseSignal(text: string): number {
  if (/^\d+$/.test(text) && Number(text) <= INT_MAX) return Number(text);
  const name = text.toUpperCase().replace(/^SIG/, "");
  const number = (constants.signals as Record<string, number>)[`SIG${name}`] ?? realTime(name);
  if (number === undefined) throw new TskataError("invalid", `unknown signal "${text}"`);
  return number;
}

export function signalNumber(name: NodeJS.Signals): number {
  return constants.signals[name] ?? 0;
}

export function signalName(number: number): NodeJS.Signals | undefined {
  return (Object.keys(constants.signals) as NodeJS.Signals[]).find((name) => constants.signals[name] === number);
}

function realTime(name: string): number | undefined {
  const match = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (match === null) return undefined;
  const offset = Number(`${match[2] ?? "+"}${match[3] ?? "0"}`);
  const number = (match[1] === "MIN" ? RTMIN : RTMAX) + offset;
  return number >= RTMIN && number <= RTMAX ? number : undefined;
}
