/** The end of a log for an error that says what died: a guest may have written it, so nothing but text comes through. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

const TAIL_BYTES = 16 * 1024;
/** What a kernel prints after it is for its developers: registers, addresses. */
const PANIC = "Kernel panic - not syncing";

/** The last lines, or those that lead to a kernel's panic; empty when there is none. */
export function logTail(file: string, lines = 8): string {
  const tail = lastBytes(file)
    .replace(/\r/g, "")
    .replace(/[^\n\t\x20-\x7e\u00a0-\uffff]/g, "")
    .trimEnd()
    .split("\n");
  const panic = tail.findLastIndex((line) => line.includes(PANIC));
  return tail
    .slice(0, panic === -1 ? undefined : panic + 1)
    .slice(-lines)
    .join("\n");
}

/** Under a heading, to be appended to an error's sentence; empty when there is none. */
export function titledTail(name: string, file: string): string {
  const tail = logTail(file);
  return tail === "" ? "" : `\nlast lines of the ${name}:\n${tail}`;
}

function lastBytes(file: string): string {
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch {
    return "";
  }
  try {
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES));
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, size - bytes.length));
  } catch {
    return "";
  } finally {
    closeSync(fd);
  }
}
