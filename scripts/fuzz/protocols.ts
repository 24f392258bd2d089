/**
 * Fuzzes what is parsed in TypeScript of another process's bytes: ttrpc frames and messages (the command line and the sandbox), every
 * message of the control and agent protocols. V8 has no coverage feedback for libFuzzer, so inputs are valid messages of random values,
 * damaged: bits, lengths, cuts, splices, nesting. A parser gives a message that it can write and read again, or fails with an error of
 * its own kind; anything else, and an input that takes longer than a second of processor time, is a finding.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { encodeFrame, FrameReader, REQUEST, Request, Response } from "../../src/control/ttrpc.ts";
import * as agent from "../../src/protocols/generated/agent.ts";
import * as control from "../../src/protocols/generated/control.ts";
import { type Codec, WireError } from "../../src/protocols/wire.ts";
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
