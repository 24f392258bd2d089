/** Writing to stdout, whole, without loading node's streams: those cost more than all of `state`. */
import { writeSync } from "node:fs";
import { pauseSync } from "../base/pause.ts";

const RETRY_MS = 2;

/** Writes all of it, however small the pipe's buffer; a reader that has gone is no error. */
export function print(text: string): void {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(1, bytes, written);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EPIPE") return;
      if (code !== "EAGAIN") throw error;
      pauseSync(RETRY_MS);
    }
  }
}

/** Columns as Go's tabwriter sets them for runc: cells at least 12 wide, 3 spaces between. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(12, ...rows.map((row) => [...(row[column] ?? "")].length + 3)));
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - [...cell].length))).join(""),
  );
  return `${lines.join("\n")}\n`;
}

/** What a guest's process may have written, for a line of a terminal: anything that is no text becomes "?", as procps has it. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a0-\u2027\u202f-\uffff]/g, "?");
}
