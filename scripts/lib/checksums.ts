/** The checksum beside each of the guest's files, by which a damaged one is known: `<file>.sha256`, as sha256sum(1) writes it. */
import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { distFolder } from "./steps.ts";

export function writeChecksums(): void {
  for (const name of ["guest/vmlinux", "guest/image.erofs"]) writeChecksum(join(distFolder, name));
}

/** Only of a file that was made since: the checksum of a damaged one would call it whole. */
function writeChecksum(file: string): void {
  const sums = `${file}.sha256`;
  const known = statSync(sums, { throwIfNoEntry: false });
  if (known !== undefined && known.mtimeMs >= statSync(file).mtimeMs) return;
  writeFileSync(sums, `${createHash("sha256").update(readFileSync(file)).digest("hex")}  ${basename(file)}\n`);
}
