/** Random names. */
import { closeSync, openSync, readSync } from "node:fs";

/** The kernel's own bytes: loading node:crypto for them costs a command 3 ms. */
export function randomHex(bytes: number): string {
  const buffer = Buffer.alloc(bytes);
  const fd = openSync("/dev/urandom", "r");
  try {
    // random(4): up to 256 bytes come in one piece.
    if (readSync(fd, buffer) !== bytes) throw new Error("/dev/urandom gave less than it was asked for");
  } finally {
    closeSync(fd);
  }
  return buffer.toString("hex");
}
