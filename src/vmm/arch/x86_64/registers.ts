/**
 * The state in which a vCPU enters the kernel: 64-bit mode, flat segments, identity-mapped memory (Documentation/x86/boot.rst,
 * "64-bit boot protocol"). Byte layouts are those of kvm_regs and kvm_sregs.
 */
import { BOOT_PARAMS, BOOT_STACK, GDT, IDT, MIB, PAGE_TABLES } from "./layout.ts";

const REGS = { rsi: 4, rsp: 6, rip: 16, rflags: 17, count: 18 } as const;
const SREGS = { cs: 0, ds: 1, es: 2, fs: 3, gs: 4, ss: 5, tr: 6, gdt: 192, idt: 208, cr0: 224, cr3: 240, cr4: 248, efer: 264 } as const;
const SEGMENT_BYTES = 24;

const CR0_PROTECTED = 1n;
const CR0_EXTENSION_TYPE = 1n << 4n;
const CR0_PAGING = 1n << 31n;
const CR4_PHYSICAL_ADDRESS_EXTENSION = 1n << 5n;
const EFER_LONG_MODE_ENABLE = 1n << 8n;
const EFER_LONG_MODE_ACTIVE = 1n << 10n;
/** The bit that is always set; interrupts stay off. */
const RFLAGS = 2n;

const PRESENT = 1n;
const WRITABLE = 1n << 1n;
const LARGE = 1n << 7n;
const TABLE_BYTES = 4096;

interface Segment {
  readonly selector: number;
  readonly type: number;
  readonly system: boolean;
  readonly long: boolean;
}

export const CODE_SELECTOR = 0x10;
const CODE: Segment = { selector: CODE_SELECTOR, type: 0xb, system: false, long: true };
const DATA: Segment = { selector: 0x18, type: 0x3, system: false, long: false };
const TASK: Segment = { selector: 0x20, type: 0xb, system: true, long: false };

/** kvm_regs: `entry` is where it begins, RSI points to the boot parameters. */
export function bootRegisters(entry: number): Buffer {
  const out = Buffer.alloc(REGS.count * 8);
  const set = (register: number, value: bigint): void => void out.writeBigUInt64LE(value, register * 8);
  set(REGS.rip, BigInt(entry));
  set(REGS.rsi, BigInt(BOOT_PARAMS));
  set(REGS.rsp, BigInt(BOOT_STACK));
  set(REGS.rflags, RFLAGS);
  return out;
}

/**
 * kvm_sregs, made from what the vCPU has after its reset (its APIC base and the rest stay). A kernel brings its own interrupt
 * table; `gates` is for a program that has put that many at IDT.
 */
export function bootSpecialRegisters(reset: Buffer, gates = 0): Buffer {
  const out = Buffer.from(reset);
  writeSegment(out, SREGS.cs, CODE);
  for (const index of [SREGS.ds, SREGS.es, SREGS.fs, SREGS.gs, SREGS.ss]) writeSegment(out, index, DATA);
  writeSegment(out, SREGS.tr, TASK);
  writeTable(out, SREGS.gdt, GDT, DESCRIPTORS.length * 8 - 1);
  writeTable(out, SREGS.idt, IDT, Math.max(gates * 16 - 1, 0));
  out.writeBigUInt64LE(CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING, SREGS.cr0);
  out.writeBigUInt64LE(BigInt(PAGE_TABLES), SREGS.cr3);
  out.writeBigUInt64LE(CR4_PHYSICAL_ADDRESS_EXTENSION, SREGS.cr4);
  out.writeBigUInt64LE(EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE, SREGS.efer);
  return out;
}

function writeSegment(sregs: Buffer, index: number, { selector, type, system, long }: Segment): void {
  const at = index * SEGMENT_BYTES;
  sregs.fill(0, at, at + SEGMENT_BYTES);
  sregs.writeUInt32LE(0xffff_ffff, at + 8);
  sregs.writeUInt16LE(selector, at + 12);
  // type, present, dpl, db, s, l, g
  const fields = [type, 1, 0, long || system ? 0 : 1, system ? 0 : 1, long ? 1 : 0, system ? 0 : 1];
  fields.forEach((value, offset) => void sregs.writeUInt8(value, at + 14 + offset));
}

function writeTable(sregs: Buffer, at: number, base: number, limit: number): void {
  sregs.writeBigUInt64LE(BigInt(base), at);
  sregs.writeUInt16LE(limit, at + 8);
}

/** The descriptor table that the selectors above are of (SDM volume 3, §3.4.5): null, null, code, data, task. */
const DESCRIPTORS = [0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x008f_8b00_0000_ffffn];

export function descriptorTable(): { address: number; bytes: Buffer } {
  const bytes = Buffer.alloc(DESCRIPTORS.length * 8);
  DESCRIPTORS.forEach((value, index) => void bytes.writeBigUInt64LE(value, index * 8));
  return { address: GDT, bytes };
}

/** The first GiB mapped to itself in pages of 2 MiB: the kernel, its command line and its parameters are below that. */
export function pageTables(): { address: number; bytes: Buffer } {
  const bytes = Buffer.alloc(3 * TABLE_BYTES);
  bytes.writeBigUInt64LE(BigInt(PAGE_TABLES + TABLE_BYTES) | PRESENT | WRITABLE, 0);
  bytes.writeBigUInt64LE(BigInt(PAGE_TABLES + 2 * TABLE_BYTES) | PRESENT | WRITABLE, TABLE_BYTES);
  for (let page = 0; page < 512; ++page) {
    bytes.writeBigUInt64LE(BigInt(page * 2 * MIB) | PRESENT | WRITABLE | LARGE, 2 * TABLE_BYTES + page * 8);
  }
  return { address: PAGE_TABLES, bytes };
}
