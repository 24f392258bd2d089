/** src/host/guest-files.ts: guest kernel and image are seen to be whole, cut short, or something else. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { checkImage, checkKernel } from "../../src/host/guest-files.ts";
import { failure, temporaryFolder } from "./helpers.ts";

function store(t: ExecutionContext, bytes: Uint8Array | string): string {
  const file = join(temporaryFolder(t), "file");
  writeFileSync(file, bytes);
  return file;
}

/** An ELF64 file with program headers of these offsets and sizes. */
function elf(...segments: [offset: number, size: number][]): Buffer {
  const header = Buffer.alloc(64 + 56 * segments.length);
  header.write("\x7fELF", "latin1");
  header[4] = 2;
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(segments.length, 56);
  for (const [index, [offset, size]] of segments.entries()) {
    header.writeBigUInt64LE(BigInt(offset), 64 + 56 * index + 8);
    header.writeBigUInt64LE(BigInt(size), 64 + 56 * index + 32);
  }
  return header;
}

/** A bzImage of two sectors of setup code and so many bytes behind them. */
function bzImage(kernelBytes: number, change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(2 * 512 + kernelBytes);
  bytes.writeUInt8(1, 0x1f1);
  bytes.writeUInt32LE(Math.ceil(kernelBytes / 16), 0x1f4);
  bytes.writeUInt8(0x6a, 0x201);
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(1, 0x236);
  change(bytes);
  return bytes;
}

function erofs(blocks: number, blockBits: number, bytes: number): Buffer {
  const image = Buffer.alloc(bytes);
  image.writeUInt32LE(0xe0f5e1e2, 1024);
  image[1024 + 12] = blockBits;
  image.writeUInt32LE(blocks, 1024 + 36);
  return image;
}

test("this node is a whole ELF file", (t) => {
  const { file, bytes } = checkKernel(process.execPath);
  t.is(file, process.execPath);
  t.true(bytes > 1_000_000);
});

test("a kernel must hold all its segments", (t) => {
  const whole = Buffer.concat([elf([4096, 100], [176, 50]), Buffer.alloc(4020)]);
  t.is(checkKernel(store(t, whole)).bytes, 4196);
  t.throws(() => checkKernel(store(t, whole.subarray(0, 4195))), failure("unavailable", /^guest kernel .*: truncated: 4195 bytes of at least 4196$/));
  t.throws(() => checkKernel(store(t, whole.subarray(0, 100))), failure("unavailable", /: truncated: its program headers are missing$/));
});

test("a bzImage must hold all of its kernel, and may have a signature behind", (t) => {
  const whole = bzImage(4096);
  t.is(checkKernel(store(t, whole)).bytes, 5120);
  t.is(checkKernel(store(t, Buffer.concat([whole, Buffer.alloc(100)]))).bytes, 5220);
  t.throws(() => checkKernel(store(t, whole.subarray(0, 5119))), failure("unavailable", /^guest kernel .*: truncated: 5119 bytes of at least 5120$/));
  t.throws(() => checkKernel(store(t, whole.subarray(0, 1024))), failure("unavailable", /: truncated: 1024 bytes of at least 5120$/));
  const none = bzImage(4096, (bytes) => void bytes.writeUInt32LE(0, 0x1f4));
  t.throws(() => checkKernel(store(t, none)), failure("unavailable", /: a bzImage with nothing behind its setup code$/));
  for (const [at, value] of [
    [0x236, 0],
    [0x206, 0x20b],
  ] as const) {
    const old = bzImage(4096, (bytes) => void bytes.writeUInt16LE(value, at));
    t.throws(() => checkKernel(store(t, old)), failure("unavailable", /: a bzImage without a 64-bit entry$/));
  }
});

test("what is no kernel", (t) => {
  for (const bytes of ["", "MZ", "x".repeat(100), elf([0, 0]).subarray(0, 63)])
    t.throws(() => checkKernel(store(t, bytes)), failure("unavailable", /: neither a 64-bit ELF file nor a bzImage$/));
  t.throws(() => checkKernel(store(t, elf())), failure("unavailable", /: not an executable ELF file$/));
  const small = elf([0, 0]);
  small[4] = 1;
  t.throws(() => checkKernel(store(t, small)), failure("unavailable", /: neither a 64-bit ELF file nor a bzImage$/));
});

test("an image must hold all its blocks", (t) => {
  t.is(checkImage(store(t, erofs(2, 12, 8192))).bytes, 8192);
  t.throws(() => checkImage(store(t, erofs(3, 12, 8192))), failure("unavailable", /^guest image .*: truncated: 8192 bytes of 12288$/));
  t.throws(() => checkImage(store(t, Buffer.alloc(8192))), failure("unavailable", /: not an erofs image$/));
  t.throws(() => checkImage(store(t, erofs(1, 9, 8192).subarray(0, 1100))), failure("unavailable", /: not an erofs image$/));
});

test("no file", (t) => {
  t.throws(() => checkKernel("/no/such"), failure("unavailable", "guest kernel /no/such: no such file (ENOENT)"));
  t.throws(() => checkImage("/etc/passwd/x"), failure("unavailable", "guest image /etc/passwd/x: ENOTDIR"));
});

test("program headers beyond what a file offset can be", (t) => {
  const far = elf([0, 0]);
  far.writeBigUInt64LE(2n ** 63n, 32);
  t.throws(() => checkKernel(store(t, far)), failure("unavailable", /: truncated: its program headers are missing$/));
});

test("program headers of more bytes than a buffer takes", (t) => {
  const many = elf([0, 0]);
  many.writeUInt16LE(0xffff, 54);
  many.writeUInt16LE(0xffff, 56);
  t.throws(() => checkKernel(store(t, many)), failure("unavailable", /: truncated: its program headers are missing$/));
});

test("any damage to the bytes gives a file or our error", (t) => {
  const file = join(temporaryFolder(t), "file");
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 8 });
  const run = (whole: Buffer, region: number, check: (file: string) => unknown): void => {
    fc.assert(
      fc.property(damage, fc.nat(whole.length), (changes, length) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[region + (at % 128)] = value;
        writeFileSync(file, bytes.subarray(0, length));
        try {
          check(file);
          t.pass();
        } catch (error) {
          t.true(error instanceof TskataError && error.code === "unavailable", String(error));
        }
      }),
    );
  };
  run(Buffer.concat([elf([176, 50], [100, 20]), Buffer.alloc(200)]), 0, checkKernel);
  run(bzImage(1024), 0x1f0, checkKernel);
  run(erofs(2, 12, 8192), 1024, checkImage);
});
