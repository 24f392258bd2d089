/** The end of a log for an error that says what died: a guest may have written it, so nothing but text comes through. */
import { readPodFile } from "./pod-file.ts";

const TAIL_BYTES = 16 * 1024;
/** What a kernel prints after it is for its developers: registers, addresses. */
export const KERNEL_PANIC = "Kernel panic - not syncing";

/** The last lines, or those that lead to a kernel's panic; empty when there is none. */
export function logTail(file: string, lines = 8): string {
  const tail = plainText(lastBytes(file)).trimEnd().split("\n");
  const panic = tail.findLastIndex((line) => line.includes(KERNEL_PANIC));
  return tail
    .slice(0, panic === -1 ? undefined : panic + 1)
    .slice(-lines)
    .join("\n");
}

/** What is left of it that no terminal obeys. */
export function plainText(text: string): string {
  return text.replace(/[^\n\t\x20-\x7e\u00a0-\uffff]/g, "");
}

/** Under a heading, to be appended to an error's sentence; empty when there is none. */
export function titledTail(name: string, file: string): string {
  const tail = logTail(file);
  return tail === "" ? "" : `\nlast lines of the ${name}:\n${tail}`;
}

function lastBytes(file: string): string {
  try {
    return readPodFile(file, TAIL_BYTES);
  } catch {
    return "";
  }
}
