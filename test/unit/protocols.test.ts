/** Protobuf: generated codecs against protobufjs's own, the generated files' freshness, and hostile bytes. */
import { readFileSync } from "node:fs";
import test from "ava";
import fc from "fast-check";
import protobuf from "protobufjs";
import { generate } from "../../scripts/protos.ts";
import * as agent from "../../src/protocols/generated/agent.ts";
import * as control from "../../src/protocols/generated/control.ts";
import { type Codec, WireError } from "../../src/protocols/wire.ts";

const PROTOCOLS = new URL("../../src/protocols/", import.meta.url);

function reflected(name: string): protobuf.Namespace {
  const parsed = protobuf.parse(readFileSync(new URL(`${name}.proto`, PROTOCOLS), "utf8"), { keepCase: false });
  parsed.root.resolveAll();
  return parsed.root.lookup(parsed.package ?? "") as protobuf.Namespace;
}

const reference = { agent: reflected("agent"), control: reflected("control") };
type CodecOf = Codec<Record<string, unknown>>;

/** Any value a field may hold, as our decoder gives it back. */
function fieldArbitrary(field: protobuf.Field, members: protobuf.Namespace): fc.Arbitrary<unknown> {
  if (field instanceof protobuf.MapField) return fc.array(fc.tuple(text, text)).map((pairs) => new Map(pairs));
  const scalars: Record<string, fc.Arbitrary<unknown>> = {
    uint32: fc.integer({ min: 0, max: 0xffffffff }),
    int32: fc.integer(),
    uint64: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    int64: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
    double: fc.double({ noNaN: true }).map((value) => (value === 0 ? 0 : value)),
    bool: fc.boolean(),
    string: text,
    bytes: fc.uint8Array(),
  };
  const value = scalars[field.type] ?? messageArbitrary(members.lookupType(field.type), members);
  if (field.repeated) return fc.array(value, { maxLength: 4 });
  return scalars[field.type] === undefined ? fc.option(value, { nil: undefined }) : value;
}

const text = fc.string({ unit: "binary" }).filter((value) => value.isWellFormed());

function messageArbitrary(type: protobuf.Type, members: protobuf.Namespace): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(Object.fromEntries(type.fieldsArray.map((field) => [field.name, fieldArbitrary(field, members)])));
}

/** Our value in protobufjs's form: Map as object, bigint as what its writer takes. */
function forReference(value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, entry]) => [key, entry]));
  if (value instanceof Uint8Array) return value;
  if (typeof value === "bigint") {
    return { low: Number(BigInt.asIntN(32, value)), high: Number(BigInt.asIntN(32, value >> 32n)), unsigned: true };
  }
  if (Array.isArray(value)) return value.map(forReference);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  return Object.fromEntries(entries.map(([key, entry]) => [key, forReference(entry)]));
}

for (const [name, codecs] of [
  ["agent", agent],
  ["control", control],
] as const) {
  const members = reference[name];
  for (const type of members.nestedArray.filter((entry) => entry instanceof protobuf.Type)) {
    test(`${name}.${type.name}: what protobufjs writes and what we write reads back the same`, (t) => {
      const codec = (codecs as unknown as Record<string, CodecOf>)[type.name];
      if (codec === undefined) throw new Error(`no codec for ${type.name}`);
      fc.assert(
        fc.property(messageArbitrary(type, members), (message) => {
          t.deepEqual(codec.decode(codec.encode(message)), message);
          t.deepEqual(codec.decode(new Uint8Array(type.encode(forReference(message) as Record<string, unknown>).finish())), message);
        }),
        { numRuns: 50 },
      );
    });
  }
}

test("a string that begins with U+FEFF keeps it", (t) => {
  const message = { step: "\uFEFFmount", code: "ENOENT", errno: "", message: "\uFEFF" };
  t.deepEqual(agent.ErrorDetail.decode(agent.ErrorDetail.encode(message)), message);
});

test("generated files are what scripts/protos.ts makes of the .proto files", (t) => {
  for (const name of ["agent", "control"]) {
    t.is(readFileSync(new URL(`generated/${name}.ts`, PROTOCOLS), "utf8"), generate(name));
  }
});

test("random bytes decode to a message or fail with WireError, never otherwise", (t) => {
  const codecs: Codec<unknown>[] = [agent.CreateSandboxRequest, agent.CheckResponse, agent.Event, agent.ListResponse];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...codecs), (bytes, codec) => {
      try {
        codec.decode(bytes);
      } catch (error) {
        t.true(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 5000 },
  );
});

test("unknown fields of every wire type are passed over", (t) => {
  const known = agent.ProcessResponse.encode({ pid: 7 });
  const unknown = [0xf8, 0x01, 0x05, 0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0xfa, 0x01, 2, 9, 9, 0xfd, 0x01, 1, 2, 3, 4];
  t.deepEqual(agent.ProcessResponse.decode(Uint8Array.from([...unknown, ...known, ...unknown])), { pid: 7 });
});

test("a length beyond the message's end is refused", (t) => {
  t.throws(() => agent.Span.decode(Uint8Array.from([10, 200, 1, 65])), { instanceOf: WireError, message: /cut short/ });
});
