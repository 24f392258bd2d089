/** src/vmm: what a guest finds in memory and registers when it starts, byte by byte where a specification says so. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { bootParams, randomSeed } from "../../src/vmm/arch/x86_64/boot-params.ts";
import { type CpuidEntry, encodeCpuid, guestCpuid, parseCpuid } from "../../src/vmm/arch/x86_64/cpuid.ts";
import * as layout from "../../src/vmm/arch/x86_64/layout.ts";
import { mpTable } from "../../src/vmm/arch/x86_64/mp-table.ts";
import { bootRegisters, bootSpecialRegisters, descriptorTable, pageTables } from "../../src/vmm/arch/x86_64/registers.ts";
import { describeEnding } from "../../src/vmm/endings.ts";
import { parseKernel } from "../../src/vmm/kernel-image.ts";
import { failure } from "./helpers.ts";

const { GIB, MIB } = layout;

test("memory goes around the hole below 4 GiB, whatever its size", (t) => {
  t.deepEqual(layout.memoryRanges(256 * MIB), [{ address: 0, bytes: 256 * MIB }]);
  t.deepEqual(layout.memoryRanges(layout.SLOTS), [{ address: 0, bytes: layout.SLOTS }]);
  for (const size of [4, 6, 64]) {
    const ranges = layout.memoryRanges(size * GIB);
    t.is(
      ranges.reduce((sum, { bytes }) => sum + bytes, 0),
      size * GIB,
    );
    t.true(ranges.every(({ address, bytes }) => address + bytes <= layout.SLOTS || address >= 4 * GIB));
  }
});

test("persistent memory is above all memory, on a whole GiB", (t) => {
  t.is(layout.persistentMemoryAddress(layout.memoryRanges(128 * MIB)), 4 * GIB);
  t.is(layout.persistentMemoryAddress(layout.memoryRanges(6 * GIB)), 7 * GIB);
  t.is(layout.persistentMemoryAddress(layout.memoryRanges(layout.SLOTS + MIB)), 5 * GIB);
});

test("nothing that is written before the start overlaps", (t) => {
  const tables = [
    { address: layout.COMMAND_LINE, bytes: Buffer.alloc(2048) },
    { address: layout.SETUP_DATA, bytes: randomSeed(Buffer.alloc(32)) },
    { address: layout.IDT, bytes: Buffer.alloc(4 * 16) },
    { address: layout.BOOT_STACK - 8, bytes: Buffer.alloc(8) },
    bootParams({ memory: layout.memoryRanges(GIB), commandLineBytes: 1, header: undefined, setupData: 0 }),
    mpTable(32),
    descriptorTable(),
    pageTables(),
  ].sort((a, b) => a.address - b.address);
  tables.forEach(({ address, bytes }, i) => {
    const next = tables[i + 1]?.address ?? layout.HIGH_MEMORY;
    t.true(address + bytes.length <= next, `0x${address.toString(16)}`);
  });
  const table = mpTable(32);
  t.true(table.address + table.bytes.length <= layout.BASE_MEMORY_END);
});

test("boot parameters: magic, command line, memory map", (t) => {
  const { bytes } = bootParams({ memory: layout.memoryRanges(6 * GIB), commandLineBytes: 77, header: undefined, setupData: 0xc000 });
  t.is(bytes.length, 4096);
  t.is(bytes.toString("latin1", 0x202, 0x206), "HdrS");
  t.is(bytes.readUInt16LE(0x1fe), 0xaa55);
  t.deepEqual([bytes.readUInt32LE(0x228), bytes.readUInt32LE(0x238), bytes.readBigUInt64LE(0x250)], [layout.COMMAND_LINE, 77, 0xc000n]);
  const entry = (i: number): [number, number, number] => {
    const at = 0x2d0 + i * 20;
    return [Number(bytes.readBigUInt64LE(at)), Number(bytes.readBigUInt64LE(at + 8)), bytes.readUInt32LE(at + 16)];
  };
  t.is(bytes.readUInt8(0x1e8), 4);
  t.deepEqual([0, 1, 2, 3].map(entry), [
    [0, 0x9fc00, 1],
    [0x9fc00, 0x400, 2],
    [MIB, layout.SLOTS - MIB, 1],
    [4 * GIB, 6 * GIB - layout.SLOTS, 1],
  ]);
});

test("a bzImage's own header is kept but for what the loader fills in", (t) => {
  const header = Buffer.alloc(0x70, 0xab);
  const { bytes } = bootParams({ memory: layout.memoryRanges(GIB), commandLineBytes: 1, header, setupData: 0 });
  t.is(bytes.readUInt8(0x1f1), 0xab);
  t.is(bytes.readUInt8(0x210), 0xff);
  t.is(bytes.readUInt8(0x211), 0xab | 1);
});

test("the MP table: both checksums, a processor for each vCPU with one that boots, lines that are pins", (t) => {
  const { bytes } = mpTable(5);
  const sum = (part: Buffer): number => part.reduce((total, byte) => (total + byte) & 0xff, 0);
  t.is(bytes.toString("latin1", 0, 4), "_MP_");
  t.is(sum(bytes.subarray(0, 16)), 0);
  const table = bytes.subarray(16);
  t.is(table.toString("latin1", 0, 4), "PCMP");
  t.is(table.readUInt16LE(4), table.length);
  t.is(sum(table), 0);
  const lengths = [20, 8, 8, 8, 8];
  const entries: Buffer[] = [];
  for (let at = 44; at < table.length; ) {
    const length = lengths[table.readUInt8(at)] ?? 0;
    entries.push(table.subarray(at, at + length));
    at += length;
  }
  t.is(entries.length, table.readUInt16LE(34));
  const processors = entries.filter((entry) => entry[0] === 0);
  t.deepEqual(
    processors.map((entry) => [entry[1], entry[3]]),
    [
      [0, 3],
      [1, 1],
      [2, 1],
      [3, 1],
      [4, 1],
    ],
  );
  const ioapic = entries.find((entry) => entry[0] === 2);
  t.false(processors.some((entry) => entry[1] === ioapic?.[1]));
  const lines = entries.filter((entry) => entry[0] === 3);
  t.is(lines.length, layout.LINES);
  t.true(lines.every((entry) => entry[5] === entry[7]));
});

test("registers: entry, boot parameters, 64-bit mode", (t) => {
  const regs = bootRegisters(0x100_0000);
  t.is(regs.length, 144);
  t.deepEqual([regs.readBigUInt64LE(16 * 8), regs.readBigUInt64LE(4 * 8), regs.readBigUInt64LE(17 * 8)], [0x100_0000n, BigInt(layout.BOOT_PARAMS), 2n]);
  const reset = Buffer.alloc(312, 0x5a);
  const sregs = bootSpecialRegisters(reset);
  t.is(sregs.length, 312);
  t.is(sregs.readBigUInt64LE(224), 0x8000_0011n);
  t.is(sregs.readBigUInt64LE(264), 0x500n);
  t.is(sregs.readBigUInt64LE(240), BigInt(layout.PAGE_TABLES));
  t.deepEqual(sregs.subarray(272), reset.subarray(272), "the APIC's base stays");
  t.deepEqual([...sregs.subarray(14, 21)], [0xb, 1, 0, 0, 1, 1, 1], "code is 64-bit");
  t.is(bootSpecialRegisters(reset, 4).readUInt16LE(208 + 8), 63);
});

test("page tables map the first GiB to itself", (t) => {
  const { address, bytes } = pageTables();
  const entry = (table: number, index: number): bigint => bytes.readBigUInt64LE(table * 4096 + index * 8);
  t.is(entry(0, 0) & ~0xfffn, BigInt(address + 4096));
  t.is(entry(1, 0) & ~0xfffn, BigInt(address + 8192));
  for (const page of [0, 1, 511]) t.is(entry(2, page), BigInt(page * 2 * MIB) | 0x83n);
});

const leaf = (number: number, registers: Partial<CpuidEntry> = {}): CpuidEntry => ({
  ...{ leaf: number, index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 },
  ...registers,
});

test("CPUID: a leaf that is not named is not shown, others lose what is hidden", (t) => {
  const all = { eax: -1, ebx: -1, ecx: -1, edx: -1 };
  const supported = [leaf(0), leaf(1, all), leaf(7, all), leaf(0xa, all), leaf(0x14, all), leaf(0x8000_0001, all), leaf(0xc000_0001, all)];
  const shown = guestCpuid(supported, { id: 0, count: 1, tscDeadline: true });
  t.deepEqual(
    shown.map((entry) => entry.leaf),
    [0, 1, 7, 0x8000_0001],
  );
  const bit = (value: number | undefined, n: number): number => ((value ?? 0) >>> n) & 1;
  t.is(bit(shown[1]?.ecx, 5), 0, "no VMX");
  t.is(bit(shown[1]?.edx, 12), 0, "no MTRRs");
  t.is(bit(shown[1]?.ecx, 28), 1, "AVX stays");
  t.is(bit(shown[2]?.ebx, 2), 0, "no SGX");
  t.is(bit(shown[3]?.ecx, 2), 0, "no SVM");
});

test("CPUID: each vCPU knows its place, and that it is virtual", (t) => {
  const supported = [leaf(1, { ebx: 0x12_34_08_cd, ecx: 0, edx: 1 << 28 }), leaf(4, { eax: 0x1ff_c121 | 0 }), leaf(0xb), leaf(0x8000_001e, { eax: 9 })];
  const shown = guestCpuid(supported, { id: 2, count: 4, tscDeadline: false });
  const of = (number: number, index = 0): CpuidEntry | undefined => shown.find((entry) => entry.leaf === number && entry.index === index);
  t.is(of(1)?.ebx, 0x02_04_08_cd, "CLFLUSH's line size is kept");
  t.is((of(1)?.ecx ?? 0) >>> 31, 1);
  t.is(((of(1)?.ecx ?? 0) >>> 24) & 1, 0, "no TSC deadline where KVM has none");
  t.deepEqual([of(0xb)?.edx, of(0xb, 1)?.edx, of(0xb, 1)?.ebx, of(0xb, 1)?.eax], [2, 2, 4, 2]);
  t.is(of(0x8000_001e)?.eax, 2);
  t.is((of(4)?.eax ?? 0) >>> 26, 3);
  const alone = guestCpuid([leaf(1, { edx: 1 << 28 })], { id: 0, count: 1, tscDeadline: true });
  t.is(((alone[0]?.edx ?? 0) >>> 28) & 1, 0, "one vCPU has no siblings");
});

test("CPUID entries survive their encoding", (t) => {
  const entries = [leaf(0x8000_0008, { ebx: -1, flags: 1, index: 3 }), leaf(1)];
  const back = parseCpuid(encodeCpuid(entries));
  t.deepEqual(back, [{ ...leaf(0x8000_0008, { flags: 1, index: 3 }), ebx: 0xffff_ffff }, leaf(1)]);
});

/** An ELF file of one segment. */
function elf(change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(64 + 56 + 16);
  bytes.write("\x7fELF\x02", 0, "latin1");
  bytes.writeUInt16LE(62, 18);
  bytes.writeBigUInt64LE(0x100_0000n, 24);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(1, 56);
  bytes.writeUInt32LE(1, 64);
  bytes.writeBigUInt64LE(120n, 64 + 8);
  bytes.writeBigUInt64LE(0x100_0000n, 64 + 24);
  bytes.writeBigUInt64LE(16n, 64 + 32);
  bytes.writeBigUInt64LE(4096n, 64 + 40);
  change(bytes);
  return bytes;
}

test("a vmlinux: its segments, its entry, how far it reaches", (t) => {
  const bytes = elf();
  t.deepEqual(parseKernel(bytes, bytes.length, "k"), {
    entry: 0x100_0000,
    pieces: [{ fileOffset: 120, address: 0x100_0000, bytes: 16 }],
    end: 0x100_1000,
    header: undefined,
  });
  const built = join(import.meta.dirname, "../../dist/guest/vmlinux");
  const file = readFileSync(built);
  t.true(parseKernel(file.subarray(0, 65536), file.length, built).pieces.length > 0);
});

test("a kernel that is none, or half of one, is refused by name", (t) => {
  const cases: [Buffer, number, RegExp][] = [
    [Buffer.alloc(0), 0, /neither an ELF file nor a bzImage/],
    [Buffer.from("#!/bin/sh\n"), 10, /neither/],
    [elf((bytes) => void bytes.writeUInt16LE(183, 18)), 136, /not for x86-64/],
    [elf((bytes) => void bytes.writeBigUInt64LE(1n << 40n, 32)), 136, /program headers/],
    [elf((bytes) => void bytes.writeUInt32LE(2, 64)), 136, /no segment/],
    [elf(), 130, /truncated/],
    [elf((bytes) => void bytes.writeBigUInt64LE(0n, 64 + 24)), 136, /where no kernel can be/],
    [elf((bytes) => void bytes.writeBigUInt64LE(1n, 64 + 40)), 136, /where no kernel can be/],
  ];
  for (const [bytes, size, message] of cases) {
    t.throws(() => parseKernel(bytes, size, "/k"), failure("unavailable", new RegExp(`^guest kernel /k: .*${message.source}`)));
  }
});

test("a bzImage: what follows its setup code goes to 1 MiB, entered in 64-bit mode", (t) => {
  const bytes = Buffer.alloc(4096);
  bytes.writeUInt8(2, 0x1f1);
  bytes.writeUInt32LE(98_464 / 16, 0x1f4);
  bytes.writeUInt8(0x6a, 0x201);
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(1, 0x236);
  bytes.writeBigUInt64LE(0x100_0000n, 0x258);
  bytes.writeUInt32LE(0x200_0000, 0x260);
  const kernel = parseKernel(bytes, 100_000, "k");
  t.like(kernel, { entry: 0x10_0200, end: 0x300_0000, pieces: [{ fileOffset: 1536, address: 0x10_0000, bytes: 98_464 }] });
  t.is(kernel.header?.length, 0x202 + 0x6a - 0x1f1);
  t.throws(() => parseKernel(bytes, 99_999, "k"), failure("unavailable", /truncated: 99999 bytes of at least 100000/));
  bytes.writeUInt16LE(0, 0x236);
  t.throws(() => parseKernel(bytes, 100_000, "k"), failure("unavailable", /without a 64-bit entry/));
});

test("every way to end has words of its own", (t) => {
  const kinds = ["reset", "shutdown", "halt", "internal-error", "entry-failure", "system-event", "unknown-exit", "error", "host-error"] as const;
  const texts = kinds.map((kind) => describeEnding({ kind, vcpu: 1, detail: 1n, instruction: 0x1000n }));
  t.is(new Set(texts).size, kinds.length);
  t.is(texts[1], "the guest had a triple fault (vCPU 1 at 0x1000)");
  t.regex(texts[3] ?? "", /could not emulate/);
});
