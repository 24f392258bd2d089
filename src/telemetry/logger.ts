/**
 * The log of the command line: lines as runc's logrus writes them, because dockerd, containerd and podman parse them.
 *
 * text: `time="2026-11-20T22:51:09Z" level=error msg="container does not exist"`
 * json: `{"level":"error","msg":"container does not exist","time":"2026-11-20T22:51:09Z"}`
 * Without --log, lines go to stderr, a long message's further lines below its first as they are; with it, to that file (appended), and a
 * fatal message also goes to stderr bare.
 */
import { appendFileSync, writeSync } from "node:fs";
import { plainText } from "../base/log-tail.ts";

export type LogLevel = "debug" | "info" | "warning" | "error";
export type LogFormat = "text" | "json";

const ORDER: Record<LogLevel, number> = { debug: 0, info: 1, warning: 2, error: 3 };

export interface LoggerOptions {
  /** File to append to; absent: stderr. */
  readonly file?: string | undefined;
  readonly format: LogFormat;
  readonly level: LogLevel;
}

export class Logger {
  readonly #options: LoggerOptions;

  constructor(options: LoggerOptions) {
    this.#options = options;
  }

  debug(message: string): void {
    this.log("debug", message);
  }

  info(message: string): void {
    this.log("info", message);
  }

  warning(message: string): void {
    this.log("warning", message);
  }

  error(message: string): void {
    this.log("error", message);
  }

  log(level: LogLevel, message: string): void {
    if (ORDER[level] < ORDER[this.#options.level]) return;
    const { file, format } = this.#options;
    if (file !== undefined) append(file, formatLine(format, level, message, new Date()));
    else if (format === "text") writeStderr(formatForPeople(level, message));
    else writeStderr(formatLine(format, level, message, new Date()));
  }

  /** The last line of a failing command: in the log, and bare on stderr when the log is a file (runc's `fatal`). */
  fatal(message: string): void {
    this.error(message);
    if (this.#options.file !== undefined) writeStderr(`${message}\n`);
  }
}

/** stderr has readers that are people, or callers that show it to them: what follows a message's first line follows as it is. */
function formatForPeople(level: LogLevel, message: string): string {
  const [first = "", ...rest] = message.split("\n");
  return [formatLine("text", level, first, new Date()), ...rest.map((line) => `${plainText(line)}\n`)].join("");
}

/** A log on a full disk must not end the command it tells of; logrus says so on stderr and goes on. */
function append(file: string, line: string): void {
  try {
    appendFileSync(file, line, { mode: 0o644 });
  } catch (error) {
    writeStderr(`Failed to write to log, ${(error as Error).message}\n`);
  }
}

export function formatLine(format: LogFormat, level: LogLevel, message: string, when: Date): string {
  const time = rfc3339(when);
  if (format === "json") return `{"level":"${level}","msg":${goString(message)},"time":"${time}"}\n`;
  return `time="${time}" level=${level} msg=${quoteText(message)}\n`;
}

/** logrus quotes a text value only when it holds something outside [a-zA-Z0-9-._/@^+]; the empty string stays bare. */
function quoteText(message: string): string {
  return /^[\w\-./@^+]*$/.test(message) ? message : quote(message);
}

/** Go's %q: what is neither letter, mark, number, punctuation, symbol nor the plain space is escaped: \x1b, \u200b, \U000e0001. */
function quote(message: string): string {
  let quoted = "";
  for (const character of message) {
    const code = character.codePointAt(0) ?? 0;
    const short = SHORT_ESCAPES[character];
    if (short !== undefined) quoted += short;
    else if (code < 0x20 || code === 0x7f) quoted += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (/[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u.test(character)) quoted += character;
    else quoted += code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  }
  return `"${quoted}"`;
}

const SHORT_ESCAPES: Record<string, string> = {
  "\\": "\\\\",
  '"': '\\"',
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
};

/** encoding/json with HTML escaping, as logrus's JSON formatter has it. */
function goString(message: string): string {
  return JSON.stringify(message).replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Local time with whole seconds, as Go's time.RFC3339. */
export function rfc3339(when: Date): string {
  const minutes = -when.getTimezoneOffset();
  const local = new Date(when.getTime() + minutes * 60_000).toISOString().slice(0, 19);
  if (minutes === 0) return `${local}Z`;
  const two = (value: number): string => String(Math.trunc(value)).padStart(2, "0");
  return `${local}${minutes < 0 ? "-" : "+"}${two(Math.abs(minutes) / 60)}:${two(Math.abs(minutes) % 60)}`;
}

/** stderr may be closed or a full pipe of a dead reader: a message that can't be shown must not hide the exit code. */
export function writeStderr(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Nowhere left to tell it.
  }
}
