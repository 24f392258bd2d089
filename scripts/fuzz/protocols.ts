/**
 * Fuzzes what is parsed in TypeScript of another process's bytes: ttrpc frames and messages (the command line and the sandbox), every
 * message of the control and agent protocols, the guest's JSON, and the guest's console and other logs as errors tell of them. V8 has no
 * coverage feedback for libFuzzer, so inputs are valid messages of random values, damaged: bits, lengths, cuts, splices, nesting. A
 * parser of messages gives one that it can write and read again, or fails with an error of its own kind; what is printed of a guest's
 * words is bounded and nothing that a terminal obeys. Anything else, and an input that takes longer than a second of processor time, is a
 * finding.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { isFailureCode } from "../../src/base/failures.ts";
import { KERNEL_PANIC, logTail, plainText, titledTail } from "../../src/base/log-tail.ts";
import { encodeFrame, FrameReader, REQUEST, Request, Response } from "../../src/control/ttrpc.ts";
import { guestEnd, guestSilence } from "../../src/hypervisor/guest-end.ts";
import * as agent from "../../src/protocols/generated/agent.ts";
import * as control from "../../src/protocols/generated/control.ts";
import { type Codec, WireError } from "../../src/protocols/wire.ts";
import { guestJson } from "../../src/sandbox/guest-json.ts";
import { buildFolder, say } from "../lib/steps.ts";

const HANG_MS = 1000;
const CHUNK = 2000;

type AnyCodec = Codec<object>;

function isCodec(value: unknown): value is AnyCodec {
  return typeof value === "object" && value !== null && "decode" in value && "encode" in value;
}

const codecs: readonly AnyCodec[] = [...Object.values(agent), ...Object.values(control), Request, Response].filter(isCodec);

/** Bytes that look like protobuf: fields of any number and type, lengths that are right, messages in messages. */
const wireLike: fc.Arbitrary<Uint8Array> = fc.letrec<{ message: Uint8Array; field: Uint8Array }>((tie) => ({
  message: fc.array(tie("field"), { maxLength: 8, depthIdentifier: "wire" }).map((fields) => Buffer.concat(fields)),
  field: fc.oneof(
    { depthIdentifier: "wire", maxDepth: 6 },
    fc
      .tuple(fc.integer({ min: 1, max: 20 }), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }))
      .map(([number, value]) => Buffer.concat([varint(BigInt(number << 3)), varint(value)])),
    fc.tuple(fc.integer({ min: 1, max: 20 }), fc.string()).map(([number, text]) => lengthField(number, Buffer.from(text))),
    fc
      .tuple(fc.integer({ min: 1, max: 20 }), fc.uint8Array({ minLength: 8, maxLength: 8 }))
      .map(([number, bytes]) => Buffer.concat([varint(BigInt((number << 3) | 1)), bytes])),
    fc.tuple(fc.integer({ min: 1, max: 20 }), tie("message")).map(([number, inner]) => lengthField(number, inner)),
  ),
})).message;

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

function lengthField(number: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([varint(BigInt((number << 3) | 2)), varint(BigInt(bytes.length)), bytes]);
}

type Damage = (bytes: Uint8Array) => Uint8Array;

const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.tuple(place, fc.integer({ min: 0, max: 7 })).map(
    ([at, bit]): Damage =>
      (bytes) =>
        changed(bytes, at, (old) => old ^ (1 << bit)),
  ),
  fc.tuple(place, fc.integer({ min: 0, max: 255 })).map(
    ([at, value]): Damage =>
      (bytes) =>
        changed(bytes, at, () => value),
  ),
  place.map(
    (at): Damage =>
      (bytes) =>
        bytes.subarray(0, Math.floor(at * bytes.length)),
  ),
  fc.tuple(place, fc.uint8Array({ maxLength: 12 })).map(
    ([at, extra]): Damage =>
      (bytes) => {
        const cut = Math.floor(at * bytes.length);
        return Buffer.concat([bytes.subarray(0, cut), extra, bytes.subarray(cut)]);
      },
  ),
  fc.tuple(place, place).map(
    ([from, to]): Damage =>
      (bytes) =>
        Buffer.concat([bytes, bytes.subarray(Math.floor(from * bytes.length), Math.floor(to * bytes.length))]),
  ),
);

function changed(bytes: Uint8Array, at: number, change: (old: number) => number): Uint8Array {
  if (bytes.length === 0) return bytes;
  const copy = Uint8Array.from(bytes);
  const index = Math.floor(at * copy.length);
  copy[index] = change(copy[index] ?? 0);
  return copy;
}

const damaged = fc.tuple(wireLike, fc.array(damage, { maxLength: 4 })).map(([bytes, damages]) => damages.reduce((value, next) => next(value), bytes));

/** A parser's own errors; anything else it throws is a finding. */
function allowed(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof WireError || error instanceof TskataError)) throw error;
  }
}

/** What was read can be written, and reads the same: nothing in it is half-parsed. */
function message(codec: AnyCodec, bytes: Uint8Array): void {
  allowed(() => {
    const first = codec.encode(codec.decode(bytes));
    const second = codec.encode(codec.decode(first));
    if (Buffer.compare(first, second) !== 0) throw new Error(`${codec.name} is not the same when it is read again`);
  });
}

function frames(stream: Uint8Array, step: number): void {
  allowed(() => {
    const reader = new FrameReader();
    for (let at = 0; at < stream.length; at += step) {
      for (const { type, data } of reader.push(Buffer.from(stream.subarray(at, at + step)))) (type === REQUEST ? Request : Response).decode(data);
    }
  });
}

const stream = fc.array(fc.tuple(damaged, fc.nat(0xffff), fc.nat(3)), { maxLength: 4 });

function hold(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Whole lines of it are allowed here or there; nothing else below the space, no DEL, nothing of C1. */
const OBEYED = /[^\n\t\x20-\x7e\u00a0-\uffff]/;

const jsonLike: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.json({ stringUnit: "binary", maxDepth: 4 }).map((text) => Buffer.from(text)),
  fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue({ stringUnit: "binary" }), { maxKeys: 6 }).map((value) => Buffer.from(JSON.stringify(value))),
  fc.array(fc.constantFrom("1e20", "-1e20", "1e-6", "-0", '"\\ud800"', '"\u009b"', "[{}]"), { maxLength: 40 }).map((all) => Buffer.from(`{"":[${all}]}`)),
  fc.integer({ min: 0, max: 100_000 }).map((depth) => Buffer.from(`{"a":${"[".repeat(depth)}${"]".repeat(depth)}}`)),
  fc.integer({ min: 262_000, max: 263_000 }).map((length) => Buffer.from(`{"a":"${"x".repeat(length)}"}`)),
);

/** A number or a DEL may be written longer than it came: no more than that. */
const JSON_GROWTH = 6;

/** One object on one line, which is the same when it is read again. */
function json(bytes: Uint8Array): void {
  allowed(() => {
    const written = guestJson(bytes, "statistics");
    const text = written.toString();
    hold(written.length <= JSON_GROWTH * bytes.length, `${written.length} bytes of ${bytes.length}`);
    hold(!OBEYED.test(text) && !/[\n\t]/.test(text), "more than one line of text");
    const value: unknown = JSON.parse(text);
    hold(typeof value === "object" && value !== null && !Array.isArray(value), "no object");
    hold(guestJson(written, "statistics").equals(written), "not the same when it is read again");
  });
}

/** What kernels, agents and V8 say at their end, and bytes of a guest that would have a terminal obey it. */
const logLike: fc.Arbitrary<Uint8Array> = fc
  .array(
    fc.oneof(
      fc
        .constantFrom(
          `[    1.2] ${KERNEL_PANIC}: `,
          `${KERNEL_PANIC}: Attempted to kill init! exitcode=0x00000009\n`,
          `${KERNEL_PANIC}: Attempted to kill init! exitcode=0xffffffff`,
          "Out of memory: Killed process 1",
          "erofs: (device vda): bad\n",
          "VFS: Unable to mount root fs\r\n",
          "\u001b[2J\u009b31m\u0007",
          "\u2028\u202e\ufeff",
          "\n",
          "\t",
        )
        .map((text) => Buffer.from(text)),
      fc.string({ unit: "binary", maxLength: 300 }).map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 0, max: 20_000 }).map((length) => Buffer.alloc(length, "x")),
    ),
    { maxLength: 30 },
  )
  .map((parts) => Buffer.concat(parts));

const TAIL_CHARACTERS = 16 * 1024;
/** The words around them included. */
const PANIC_CHARACTERS = 400;

/** The last lines of a log: text, so many lines and so long; and again the same, where it is text already. */
function tail(file: string, lines: number): string {
  const told = logTail(file, lines);
  hold(!OBEYED.test(told) && plainText(told) === told, "more than text");
  hold(told.length <= TAIL_CHARACTERS && told.split("\n").length <= lines, `${told.length} characters, ${told.split("\n").length} lines`);
  const titled = titledTail("console", file);
  hold(!OBEYED.test(titled) && titled.length <= TAIL_CHARACTERS + 40, "more than the tail under its title");
  return told;
}

/** One sentence that is bounded, and a kind of failure that there is, whatever the console says. */
function end(by: "guest" | "hypervisor", console: string, memoryMib: number): void {
  const machine = { description: "a machine", memoryMib };
  for (const failure of [guestEnd({ by, what: "it has ended" }, console, machine), guestSilence(10, console, machine)]) {
    hold(isFailureCode(failure.failure), failure.failure);
    hold(failure.message.length <= PANIC_CHARACTERS && !/[\r\n]/.test(failure.message), `no sentence: ${failure.message.length} characters`);
  }
}

const scratch = join(mkdtempSync(join(tmpdir(), "tskata-fuzz-")), "log");
process.on("exit", () => rmSync(join(scratch, ".."), { recursive: true, force: true }));

interface Outcome {
  readonly tried: number;
  readonly seed: number;
  /** What shrank to the least input that fails. */
  readonly finding: string | undefined;
}

const checks: readonly (() => Outcome)[] = [
  () => check(fc.property(fc.constantFrom(...codecs), damaged, (codec, bytes) => inTime(() => message(codec, bytes)))),
  () =>
    check(
      fc.property(stream, fc.array(damage, { maxLength: 3 }), fc.integer({ min: 1, max: 64 }), (parts, damages, step) => {
        const whole = Buffer.concat(parts.map(([data, id, type]) => encodeFrame({ data, stream: id, type })));
        inTime(() =>
          frames(
            damages.reduce<Uint8Array>((value, next) => next(value), whole),
            step,
          ),
        );
      }),
    ),
  () =>
    check(
      fc.property(jsonLike, fc.array(damage, { maxLength: 3 }), (bytes, damages) =>
        inTime(() => json(damages.reduce<Uint8Array>((value, next) => next(value), bytes))),
      ),
    ),
  () =>
    check(
      fc.property(logLike, fc.integer({ min: 1, max: 40 }), fc.constantFrom("guest", "hypervisor"), fc.nat(128), (bytes, lines, by, memoryMib) =>
        inTime(() => {
          writeFileSync(scratch, bytes);
          end(by, tail(scratch, lines), memoryMib);
        }),
      ),
    ),
];

function check<T>(property: fc.IProperty<T>): Outcome {
  const { numRuns, seed, failed, errorInstance, counterexample } = fc.check(property, { numRuns: CHUNK });
  return { tried: numRuns, seed, finding: failed ? `${String(errorInstance)}: ${fc.stringify(counterexample)}` : undefined };
}

/** Of processor time: the machine may be busy with others. */
function inTime(work: () => void): void {
  const start = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(start);
  const took = (user + system) / 1000;
  if (took > HANG_MS) throw new Error(`took ${took} ms of processor time`);
}

/** Inputs that were tried in `seconds`; a finding throws, with what shrinks to it. */
export function fuzzProtocols(seconds: number): number {
  const end = Date.now() + seconds * 1000;
  let tried = 0;
  while (Date.now() < end) {
    for (const next of checks) {
      const outcome = next();
      tried += outcome.tried;
      if (outcome.finding === undefined) continue;
      const folder = join(buildFolder, "fuzz/crashes");
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, `protocols-${outcome.seed}`), outcome.finding);
      throw new Error(outcome.finding);
    }
  }
  return tried;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "20" } } });
  say(`${fuzzProtocols(Number(values.seconds))} inputs, no finding`);
}
