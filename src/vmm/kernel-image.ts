/** Reads a kernel file: which bytes go where, and where it is entered in 64-bit mode. */
import { TskataError } from "../base/errors.ts";
import { type BzImage, bzImageProblem, readBzImage } from "./arch/x86_64/bzimage.ts";

export interface KernelImage {
  readonly entry: number;
  /** Pieces of the file and where they go; memory beyond a piece is zero already. */
  readonly pieces: readonly { readonly fileOffset: number; readonly address: number; readonly bytes: number }[];
  /** One past the last byte of memory the kernel takes at its start. */
  readonly end: number;
  /** A bzImage's setup header. */
  readonly header: Buffer | undefined;
}

/** As much of the file as the parsers look at. */
export const KERNEL_HEAD_BYTES = 64 * 1024;

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const PT_LOAD = 1;
const MACHINE_X86_64 = 62;
const BZIMAGE_LOAD = 0x10_0000;
const ENTRY_64 = 0x200;
const LOWEST = 0x10_0000;

export function parseKernel(head: Buffer, fileBytes: number, name: string): KernelImage {
  if (head.length >= ELF_HEADER_BYTES && head.subarray(0, 4).equals(Buffer.from("\x7fELF", "latin1"))) return parseElf(head, fileBytes, name);
  const bzImage = readBzImage(head);
  if (bzImage !== undefined) {
    const problem = bzImageProblem(bzImage, fileBytes);
    if (problem !== undefined) throw new TskataError("unavailable", `guest kernel ${name}: ${problem}`);
    return loadBzImage(bzImage, fileBytes);
  }
  throw new TskataError("unavailable", `guest kernel ${name}: neither an ELF file nor a bzImage`);
}

function parseElf(head: Buffer, fileBytes: number, name: string): KernelImage {
  const broken = (what: string): TskataError => new TskataError("unavailable", `guest kernel ${name}: ${what}`);
  if (head.readUInt8(4) !== 2 || head.readUInt16LE(18) !== MACHINE_X86_64) throw broken("an ELF file, but not for x86-64");
  const [table, entryBytes, count] = [Number(head.readBigUInt64LE(32)), head.readUInt16LE(54), head.readUInt16LE(56)];
  if (entryBytes !== PROGRAM_HEADER_BYTES || table + count * entryBytes > head.length) throw broken("program headers are not where they should be");
  const segments = Array.from({ length: count }, (_, i) => {
    const at = table + i * PROGRAM_HEADER_BYTES;
    const long = (offset: number): number => Number(head.readBigUInt64LE(at + offset));
    return { type: head.readUInt32LE(at), fileOffset: long(8), address: long(24), bytes: long(32), memory: long(40) };
  }).filter(({ type, memory }) => type === PT_LOAD && memory > 0);
  if (segments.length === 0) throw broken("no segment to load");
  for (const { fileOffset, address, bytes, memory } of segments) {
    if (fileOffset + bytes > fileBytes) throw broken("truncated: a segment lies beyond its end");
    if (address < LOWEST || memory < bytes) throw broken("a segment lies where no kernel can be");
  }
  const end = Math.max(...segments.map(({ address, memory }) => address + memory));
  const pieces = segments.filter(({ bytes }) => bytes > 0).map(({ fileOffset, address, bytes }) => ({ fileOffset, address, bytes }));
  return { entry: Number(head.readBigUInt64LE(24)), pieces, end, header: undefined };
}

function loadBzImage({ setupBytes, end, header }: BzImage, fileBytes: number): KernelImage {
  const bytes = fileBytes - setupBytes;
  return {
    entry: BZIMAGE_LOAD + ENTRY_64,
    pieces: [{ fileOffset: setupBytes, address: BZIMAGE_LOAD, bytes }],
    end: Math.max(BZIMAGE_LOAD + bytes, end),
    header,
  };
}
