/** The kernel's "zero page" (Documentation/x86/zero-page.rst) and its setup header (Documentation/x86/boot.rst). */
import { BASE_MEMORY_END, BOOT_PARAMS, COMMAND_LINE, HIGH_MEMORY, MP_TABLE, type Range } from "./layout.ts";

const ZERO_PAGE_BYTES = 4096;
const E820_COUNT = 0x1e8;
const E820_TABLE = 0x2d0;
const E820_ENTRY_BYTES = 20;
const E820_MEMORY = 1;
const E820_RESERVED = 2;
const HEADER = 0x1f1;
const BOOT_FLAG = 0x1fe;
const MAGIC = 0x202;
const VERSION = 0x206;
const LOADER_TYPE = 0x210;
const LOAD_FLAGS = 0x211;
const COMMAND_LINE_POINTER = 0x228;
const KERNEL_ALIGNMENT = 0x230;
const COMMAND_LINE_SIZE = 0x238;
const SETUP_DATA_POINTER = 0x250;
/** Of no loader that has a number. */
const UNDEFINED_LOADER = 0xff;
const LOADED_HIGH = 1;
const SETUP_RNG_SEED = 9;

export interface BootParams {
  readonly memory: readonly Range[];
  readonly commandLineBytes: number;
  /** A bzImage's own header, put in its place; without one the fields are those of a bare vmlinux. */
  readonly header: Buffer | undefined;
  /** Address of the first setup_data, 0 for none. */
  readonly setupData: number;
}

export function bootParams({ memory, commandLineBytes, header, setupData }: BootParams): { address: number; bytes: Buffer } {
  const page = Buffer.alloc(ZERO_PAGE_BYTES);
  if (header === undefined) bareHeader(page);
  else header.copy(page, HEADER);
  page.writeUInt8(UNDEFINED_LOADER, LOADER_TYPE);
  page.writeUInt8(page.readUInt8(LOAD_FLAGS) | LOADED_HIGH, LOAD_FLAGS);
  page.writeUInt32LE(COMMAND_LINE, COMMAND_LINE_POINTER);
  page.writeUInt32LE(commandLineBytes, COMMAND_LINE_SIZE);
  page.writeBigUInt64LE(BigInt(setupData), SETUP_DATA_POINTER);
  const entries = memoryMap(memory);
  page.writeUInt8(entries.length, E820_COUNT);
  entries.forEach(({ address, bytes, type }, index) => {
    const at = E820_TABLE + index * E820_ENTRY_BYTES;
    page.writeBigUInt64LE(BigInt(address), at);
    page.writeBigUInt64LE(BigInt(bytes), at + 8);
    page.writeUInt32LE(type, at + 16);
  });
  return { address: BOOT_PARAMS, bytes: page };
}

/** What the 64-bit entry of a vmlinux looks at of a header it does not have. */
function bareHeader(page: Buffer): void {
  page.writeUInt16LE(0xaa55, BOOT_FLAG);
  page.write("HdrS", MAGIC, "latin1");
  page.writeUInt16LE(0x020f, VERSION);
  page.writeUInt32LE(0x100_0000, KERNEL_ALIGNMENT);
}

/** The first megabyte but for the MP table and what a PC keeps above it, then everything else. */
function memoryMap(memory: readonly Range[]): (Range & { type: number })[] {
  const base = [
    { address: 0, bytes: MP_TABLE, type: E820_MEMORY },
    { address: MP_TABLE, bytes: BASE_MEMORY_END - MP_TABLE, type: E820_RESERVED },
  ];
  const rest = memory.map(({ address, bytes }) => {
    const from = Math.max(address, HIGH_MEMORY);
    return { address: from, bytes: address + bytes - from, type: E820_MEMORY };
  });
  return [...base, ...rest];
}

/** One setup_data that seeds the kernel's random numbers: it need not wait for a device's. */
export function randomSeed(seed: Uint8Array): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(SETUP_RNG_SEED, 8);
  header.writeUInt32LE(seed.length, 12);
  return Buffer.concat([header, seed]);
}
