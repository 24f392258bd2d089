/**
 * The Intel MultiProcessor table (specification 1.4): without ACPI it is how a kernel learns of its CPUs and that interrupt
 * lines are the IOAPIC's pins, one to one.
 */
import { IOAPIC, LINES, LOCAL_APIC, MP_TABLE } from "./layout.ts";

const POINTER_BYTES = 16;
const HEADER_BYTES = 44;
const REVISION_1_4 = 4;
const LOCAL_APIC_VERSION = 0x14;
const IOAPIC_VERSION = 0x11;
const ENABLED = 1;
const BOOT_PROCESSOR = 2;
const ISA_BUS = 0;
const ALL_LOCAL_APICS = 0xff;

const Entry = { processor: 0, bus: 1, ioapic: 2, interrupt: 3, localInterrupt: 4 } as const;
const Interrupt = { vectored: 0, nmi: 1, external: 3 } as const;

export function mpTable(vcpus: number): { address: number; bytes: Buffer } {
  const ioapicId = vcpus;
  const entries = [
    ...Array.from({ length: vcpus }, (_, id) => processor(id)),
    Buffer.from([Entry.bus, ISA_BUS, ...Buffer.from("ISA   ", "latin1")]),
    ioapic(ioapicId),
    ...Array.from({ length: LINES }, (_, line) => interrupt(Entry.interrupt, Interrupt.vectored, line, ioapicId, line)),
    interrupt(Entry.localInterrupt, Interrupt.external, 0, 0, 0),
    interrupt(Entry.localInterrupt, Interrupt.nmi, 0, ALL_LOCAL_APICS, 1),
  ];
  return { address: MP_TABLE, bytes: Buffer.concat([floatingPointer(), configuration(entries)]) };
}

function floatingPointer(): Buffer {
  const out = Buffer.alloc(POINTER_BYTES);
  out.write("_MP_", 0, "latin1");
  out.writeUInt32LE(MP_TABLE + POINTER_BYTES, 4);
  out.writeUInt8(POINTER_BYTES / 16, 8);
  out.writeUInt8(REVISION_1_4, 9);
  out.writeUInt8(checksum(out), 10);
  return out;
}

function configuration(entries: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const table = Buffer.concat([header, ...entries]);
  table.write("PCMP", 0, "latin1");
  table.writeUInt16LE(table.length, 4);
  table.writeUInt8(REVISION_1_4, 6);
  table.write("TSKATA  ", 8, "latin1");
  table.write("MICROVM     ", 16, "latin1");
  table.writeUInt16LE(entries.length, 34);
  table.writeUInt32LE(LOCAL_APIC, 36);
  table.writeUInt8(checksum(table), 7);
  return table;
}

function processor(id: number): Buffer {
  const out = Buffer.alloc(20);
  out.writeUInt8(Entry.processor, 0);
  out.writeUInt8(id, 1);
  out.writeUInt8(LOCAL_APIC_VERSION, 2);
  out.writeUInt8(ENABLED | (id === 0 ? BOOT_PROCESSOR : 0), 3);
  return out;
}

function ioapic(id: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt8(Entry.ioapic, 0);
  out.writeUInt8(id, 1);
  out.writeUInt8(IOAPIC_VERSION, 2);
  out.writeUInt8(ENABLED, 3);
  out.writeUInt32LE(IOAPIC, 4);
  return out;
}

/** Polarity and trigger (bytes 2 and 3) zero: as the bus has them, which for ISA is edges. */
function interrupt(entry: number, type: number, line: number, apic: number, pin: number): Buffer {
  return Buffer.from([entry, type, 0, 0, ISA_BUS, line, apic, pin]);
}

/** What makes all bytes add up to zero. */
function checksum(bytes: Buffer): number {
  return (256 - (bytes.reduce((sum, byte) => sum + byte, 0) % 256)) % 256;
}
