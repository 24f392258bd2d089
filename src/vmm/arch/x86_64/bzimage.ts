/** The setup header of a bzImage (Documentation/arch/x86/boot.rst): what of the file there must be, and where it goes. */

/** Its first field in the file; the header lies within the first BZIMAGE_HEAD_BYTES. */
export const SETUP_HEADER = 0x1f1;
export const BZIMAGE_HEAD_BYTES = 0x280;

const SECTOR = 512;
const PARAGRAPH = 16;
const PROTECTED_MODE_PARAGRAPHS = 0x1f4;
const JUMP_LENGTH = 0x201;
const MAGIC = 0x202;
const VERSION = 0x206;
/** 2.12: xloadflags. */
const VERSION_WITH_64_BIT_ENTRY = 0x20c;
const XLOAD_FLAGS = 0x236;
const XLF_KERNEL_64 = 1;
const PREFERRED_ADDRESS = 0x258;
const INIT_BYTES = 0x260;

export interface BzImage {
  /** Real-mode code, which a loader for 64-bit mode leaves out: the kernel comes behind it. */
  readonly setupBytes: number;
  /** Of the whole file, at least: a signature may come behind. */
  readonly bytes: number;
  readonly has64BitEntry: boolean;
  /** One past the last byte of memory that the unpacked kernel takes before it looks at the memory map. */
  readonly end: number;
  /** As it is to be copied into the boot parameters. */
  readonly header: Buffer;
}

/** Nothing when the file is no bzImage; `head` is its beginning. */
export function readBzImage(head: Buffer): BzImage | undefined {
  if (head.length < BZIMAGE_HEAD_BYTES || head.toString("latin1", MAGIC, MAGIC + 4) !== "HdrS") return undefined;
  const setupBytes = ((head.readUInt8(SETUP_HEADER) || 4) + 1) * SECTOR;
  return {
    setupBytes,
    bytes: setupBytes + head.readUInt32LE(PROTECTED_MODE_PARAGRAPHS) * PARAGRAPH,
    has64BitEntry: head.readUInt16LE(VERSION) >= VERSION_WITH_64_BIT_ENTRY && (head.readUInt16LE(XLOAD_FLAGS) & XLF_KERNEL_64) !== 0,
    end: Number(head.readBigUInt64LE(PREFERRED_ADDRESS)) + head.readUInt32LE(INIT_BYTES),
    // It ends where the jump at its start goes to ("details of header fields").
    header: Buffer.from(head.subarray(SETUP_HEADER, MAGIC + head.readUInt8(JUMP_LENGTH))),
  };
}

/** What is wrong with it, or nothing. */
export function bzImageProblem({ bytes, setupBytes, has64BitEntry }: BzImage, fileBytes: number): string | undefined {
  if (!has64BitEntry) return "a bzImage without a 64-bit entry";
  if (bytes === setupBytes) return "a bzImage with nothing behind its setup code";
  return bytes > fileBytes ? `truncated: ${fileBytes} bytes of at least ${bytes}` : undefined;
}
