/** Guest kernel and image are whole before a machine is started with them: half a file fails in ways nobody can read. */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { basename } from "node:path";
import { TskataError } from "../base/errors.ts";
import { FailureError } from "../base/failures.ts";
import { BZIMAGE_HEAD_BYTES, bzImageProblem, readBzImage } from "../vmm/arch/x86_64/bzimage.ts";

export interface GuestFile {
  readonly file: string;
  readonly bytes: number;
}

/** An ELF file (`vmlinux`) or a bzImage. */
export function checkKernel(file: string): GuestFile {
  return inspect("guest kernel", file, (read, size) => {
    const head = read(0, BZIMAGE_HEAD_BYTES);
    const bzImage = readBzImage(head);
    if (bzImage !== undefined) return bzImageProblem(bzImage, size);
    if (head.length < 64 || head.readUInt32BE(0) !== 0x7f454c46 || head[4] !== 2) return "neither a 64-bit ELF file nor a bzImage";
    return elfProblem(head, read, size);
  });
}

/** ELF64 (elf(5)): every program header's bytes must be in the file. */
function elfProblem(header: Buffer, read: Read, size: number): string | undefined {
  const offset = Number(header.readBigUInt64LE(32));
  const entry = header.readUInt16LE(54);
  const count = header.readUInt16LE(56);
  if (entry < 56 || count === 0) return "not an executable ELF file";
  // Before there is a buffer for them: what the header says may come to 4 GiB.
  if (offset + entry * count > size) return "truncated: its program headers are missing";
  const table = read(offset, entry * count);
  for (let at = 0; at < table.length; at += entry) {
    const end = Number(table.readBigUInt64LE(at + 8) + table.readBigUInt64LE(at + 32));
    if (end > size) return `truncated: ${size} bytes of at least ${end}`;
  }
  return undefined;
}

/**
 * In words, when the file is not what its checksum beside it (`<file>.sha256`, as sha256sum(1) writes it) is of. Undefined also where
 * there is no such file: an image of the administrator's need not have one.
 */
export function checksumProblem(file: string): string | undefined {
  try {
    const expected = /^([0-9a-f]{64})\b/.exec(readFileSync(`${file}.sha256`, "utf8"))?.[1];
    const { createHash } = process.getBuiltinModule("node:crypto"); // loading it costs every command 3 ms
    const found = createHash("sha256").update(readFileSync(file)).digest("hex");
    return expected === undefined || expected === found ? undefined : `${file} is damaged: its checksum is not the one in ${basename(file)}.sha256`;
  } catch {
    return undefined;
  }
}

const EROFS_SUPER_OFFSET = 1024;
const EROFS_MAGIC = 0xe0f5e1e2;

/** Bit of feature_compat: the superblock has a checksum. */
const EROFS_SB_CHKSUM = 1;
/** mkfs.erofs makes blocks of a page; more is no image for this guest. */
const MOST_BLOCK_BITS = 16;

/** The erofs superblock (fs/erofs/erofs_fs.h) tells how many blocks there must be, and is whole when its own checksum says so. */
export function checkImage(file: string): GuestFile {
  return inspect("guest image", file, (read, size) => {
    const superblock = read(EROFS_SUPER_OFFSET, 128);
    if (superblock.length < 128 || superblock.readUInt32LE(0) !== EROFS_MAGIC) return "not an erofs image";
    const blockBits = superblock[12] ?? 0;
    const blockBytes = 2 ** blockBits;
    const isChecked = (superblock.readUInt32LE(8) & EROFS_SB_CHKSUM) !== 0;
    const isGood = (): boolean => blockBits <= MOST_BLOCK_BITS && hasGoodChecksum(read(EROFS_SUPER_OFFSET, blockBytes - EROFS_SUPER_OFFSET));
    if (isChecked && !isGood()) return "its superblock is damaged: wrong checksum";
    const expected = superblock.readUInt32LE(36) * blockBytes;
    return expected > size ? `truncated: ${size} bytes of ${expected}` : undefined;
  });
}

/** Over the rest of the superblock's block, with the checksum's own field as zeroes (fs/erofs/super.c). */
function hasGoodChecksum(block: Buffer): boolean {
  if (block.length < 128) return false;
  const expected = block.readUInt32LE(4);
  block.writeUInt32LE(0, 4);
  return crc32c(block) === expected;
}

/** Castagnoli's polynomial, from all ones, not inverted at the end. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return crc >>> 0;
}

type Read = (offset: number, length: number) => Buffer;

function inspect(what: string, file: string, problem: (read: Read, size: number) => string | undefined): GuestFile {
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new TskataError("unavailable", `${what} ${file}: ${code === "ENOENT" ? "no such file (ENOENT)" : code}`);
  }
  try {
    const bytes = fstatSync(fd).size;
    const found = problem((offset, length) => readAt(fd, offset, length), bytes);
    if (found !== undefined) throw new FailureError("image-corrupt", `${what} ${file}: ${found}`);
    return { file, bytes };
  } finally {
    closeSync(fd);
  }
}

/** As much of the range as the file has. */
function readAt(fd: number, offset: number, length: number): Buffer {
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, readSync(fd, buffer, 0, length, offset));
}
