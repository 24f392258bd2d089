/**
 * Where things are in the guest's physical address space.
 *
 *   0x0000_0500  descriptor tables       0x0000_7000  boot parameters     0x0000_9000  page tables
 *   0x0002_0000  kernel command line     0x0009_fc00  MP table            0x0010_0000  memory, the kernel
 *   0xd000_0000  device slots (end of memory below 4 GiB)                 0xfec0_0000  IOAPIC   0xfee0_0000  local APICs
 *   0x1_0000_0000  memory above the hole, then, from the next whole GiB, persistent memory
 */

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

export const GDT = 0x500;
export const IDT = 0x540;
export const BOOT_PARAMS = 0x7000;
export const BOOT_STACK = 0x8ff0;
export const PAGE_TABLES = 0x9000;
export const SETUP_DATA = 0xc000;
export const COMMAND_LINE = 0x2_0000;
/** The top KiB of base memory, one of the places where kernels look for the table (MP specification §4). */
export const MP_TABLE = 0x9_fc00;
export const BASE_MEMORY_END = 0xa_0000;
export const HIGH_MEMORY = MIB;

export const SLOTS = 0xd000_0000;
export const SLOT_BYTES = 0x1000;
/** Lines 0 to 4 belong to a PC's timer, keyboard, second controller and serial ports; the IOAPIC has 24. */
export const FIRST_SLOT_LINE = 5;
export const LINES = 24;
export const MAX_SLOTS = LINES - FIRST_SLOT_LINE;

export const SERIAL_PORT = 0x3f8;
export const SERIAL_LINE = 4;
export const RESET_PORT = 0x64;

export const IOAPIC = 0xfec0_0000;
export const LOCAL_APIC = 0xfee0_0000;
const FOUR_GIB = 4 * GIB;

export interface Range {
  readonly address: number;
  readonly bytes: number;
}

/** Memory of this size, around the hole that ends at 4 GiB. */
export function memoryRanges(bytes: number): readonly Range[] {
  if (bytes <= SLOTS) return [{ address: 0, bytes }];
  return [
    { address: 0, bytes: SLOTS },
    { address: FOUR_GIB, bytes: bytes - SLOTS },
  ];
}

/** Persistent memory begins on a whole GiB above everything: kernels map it in sections and want them to themselves. */
export function persistentMemoryAddress(memory: readonly Range[]): number {
  const end = Math.max(FOUR_GIB, ...memory.map(({ address, bytes }) => address + bytes));
  return Math.ceil(end / GIB) * GIB;
}
