/** Writes initramfs archives: cpio in the "newc" form (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst). */
import { dirname } from "node:path";

export interface ArchiveFile {
  /** Below the archive's root, without a leading slash; folders on the way are added. */
  readonly path: string;
  readonly data: Uint8Array | string;
  readonly mode?: number;
}

const FOLDER = 0o040_755;
const REGULAR = 0o100_000;
const TRAILER = "TRAILER!!!";
const ALIGNMENT = 4;

export function cpio(files: readonly ArchiveFile[], folders: readonly string[] = []): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  const add = (name: string, mode: number, data: Buffer): void => {
    parts.push(header(inode++, mode, name, data.length), padded(data));
  };
  for (const folder of foldersOf([...folders.map((name) => `${name}/.`), ...files.map(({ path }) => path)])) add(folder, FOLDER, Buffer.alloc(0));
  for (const { path, data, mode = 0o644 } of files) add(path, REGULAR | mode, Buffer.from(data));
  add(TRAILER, 0, Buffer.alloc(0));
  return Buffer.concat(parts);
}

/** Parents before their children, each once. */
function foldersOf(paths: readonly string[]): string[] {
  const found = new Set<string>();
  for (const path of paths) {
    const parents: string[] = [];
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) parents.unshift(folder);
    for (const folder of parents) found.add(folder);
  }
  return [...found];
}

/** Thirteen fields of eight hexadecimal digits behind the magic, then the name; owner root, time 0, no device. */
function header(inode: number, mode: number, name: string, size: number): Buffer {
  const nameSize = Buffer.byteLength(name) + 1;
  const links = 1;
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, nameSize, 0];
  const text = `070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, "0")).join("")}${name}\0`;
  return padded(Buffer.from(text));
}

function padded(data: Buffer): Buffer {
  const rest = data.length % ALIGNMENT;
  return rest === 0 ? data : Buffer.concat([data, Buffer.alloc(ALIGNMENT - rest)]);
}
