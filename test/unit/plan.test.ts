/** agent/container/plan.ts: the launcher's plan, read back by a reader that follows native/launcher/plan.h. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { encodePlan, type Plan } from "../../agent/container/plan.ts";
import { repository } from "./helpers.ts";

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes);
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  u32 = (): number => {
    this.#at += 4;
    return this.#bytes.readUInt32LE(this.#at - 4);
  };

  i32 = (): number => {
    this.#at += 4;
    return this.#bytes.readInt32LE(this.#at - 4);
  };

  u64 = (): bigint => {
    this.#at += 8;
    return this.#bytes.readBigUInt64LE(this.#at - 8);
  };

  flags = (): number => Number(this.u64());

  text = (): string => {
    const length = this.u32();
    this.#at += length;
    return this.#bytes.toString("utf8", this.#at - length, this.#at);
  };

  list<T>(read: () => T): T[] {
    return Array.from({ length: this.u32() }, read);
  }

  texts = (): string[] => this.list(this.text);
  pair = (): [string, string] => [this.text(), this.text()];
}

/** struct Plan, field by field in plan.h's order. */
function decodePlan(bytes: Uint8Array): Plan & { readonly rest: number } {
  const from = new Reader(bytes);
  const { u32, i32, u64, flags, text, texts, pair } = from;
  if (u32() !== 0x504b5354 || u32() !== 1) throw new Error("no plan");
  const bits = u32();
  const unless = <T>(none: T, value: T): T | undefined => (value === none ? undefined : value);
  const present = <T>(read: () => T): T | undefined => {
    const is = u32() === 1;
    const value = read();
    return is ? value : undefined;
  };
  return {
    container: (bits & 1) !== 0,
    terminal: (bits & 2) !== 0,
    noPivot: (bits & 4) !== 0,
    newKeyring: (bits & 8) !== 0,
    noNewPrivileges: (bits & 16) !== 0,
    rootReadonly: (bits & 32) !== 0,
    newNamespaces: u32(),
    cgroup: text(),
    cgroupOf: u32(),
    initialCpus: from.list(u32),
    finalCpus: from.list(u32),
    joins: from.list(() => ({ type: u32(), path: text() })),
    uidMap: text(),
    gidMap: text(),
    timeOffsets: text(),
    hostname: text(),
    domainname: text(),
    rootfs: text(),
    rootfsPropagation: flags(),
    mounts: from.list(() => ({
      source: text(),
      target: text(),
      type: text(),
      data: text(),
      flags: flags(),
      attrSet: flags(),
      attrClear: flags(),
      recursiveAttrSet: flags(),
      recursiveAttrClear: flags(),
      propagation: from.list(flags),
      options: u32(),
    })),
    devices: from.list(() => ({ path: text(), mode: u32(), major: u32(), minor: u32(), uid: u32(), gid: u32() })),
    links: from.list(pair),
    sysctls: from.list(pair),
    maskedPaths: texts(),
    readonlyPaths: texts(),
    rows: u32(),
    columns: u32(),
    rlimits: from.list(() => ({ resource: u32(), soft: u64(), hard: u64() })),
    oomScoreAdj: unless(-(2 ** 31), i32()),
    ioPriority: unless(-1, i32()),
    scheduler: present(() => ({ policy: u32(), nice: i32(), priority: u32(), flags: flags(), runtime: flags(), deadline: flags(), period: flags() })),
    personality: unless(2 ** 64, flags()),
    umask: unless(-1, i32()),
    uid: u32(),
    gid: u32(),
    groups: from.list(u32),
    capabilities: present(() => ({ bounding: u64(), effective: u64(), inheritable: u64(), permitted: u64(), ambient: u64() })),
    cwd: text(),
    args: texts(),
    env: texts(),
    seccomp: present(() => ({
      defaultAction: u32(),
      flags: u32(),
      architectures: from.list(u32),
      rules: from.list(() => ({
        action: u32(),
        names: texts(),
        args: from.list(() => ({ index: u32(), op: u32(), value: flags(), valueTwo: flags() })),
      })),
    })),
    startHooks: from.list(() => ({ path: text(), args: texts(), env: texts(), timeoutSeconds: u32() })),
    hookState: text(),
    rest: from.rest,
  };
}

const text = fc.string({ unit: "binary", maxLength: 12 }).filter((value) => value.isWellFormed() && !value.includes("\0"));
const texts = fc.array(text, { maxLength: 4 });
const pairs = fc.array(fc.tuple(text, text), { maxLength: 3 });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.maxSafeNat();
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
const few = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(value, { maxLength: 3 });

const anyPlan: fc.Arbitrary<Plan> = fc.record({
  container: fc.boolean(),
  terminal: fc.boolean(),
  noPivot: fc.boolean(),
  newKeyring: fc.boolean(),
  noNewPrivileges: fc.boolean(),
  rootReadonly: fc.boolean(),
  newNamespaces: u32,
  cgroup: text,
  cgroupOf: u32,
  initialCpus: few(u32),
  finalCpus: few(u32),
  joins: few(fc.record({ type: u32, path: text })),
  uidMap: text,
  gidMap: text,
  timeOffsets: text,
  hostname: text,
  domainname: text,
  rootfs: text,
  rootfsPropagation: u53,
  mounts: few(
    fc.record({
      source: text,
      target: text,
      type: text,
      data: text,
      flags: u53,
      attrSet: u53,
      attrClear: u53,
      recursiveAttrSet: u53,
      recursiveAttrClear: u53,
      propagation: few(u53),
      options: u32,
    }),
  ),
  devices: few(fc.record({ path: text, mode: u32, major: u32, minor: u32, uid: u32, gid: u32 })),
  links: pairs,
  sysctls: pairs,
  maskedPaths: texts,
  readonlyPaths: texts,
  rows: u32,
  columns: u32,
  rlimits: few(fc.record({ resource: u32, soft: u64, hard: u64 })),
  oomScoreAdj: maybe(fc.integer({ min: -1000, max: 1000 })),
  ioPriority: maybe(fc.nat()),
  scheduler: maybe(fc.record({ policy: u32, nice: fc.integer(), priority: u32, flags: u53, runtime: u53, deadline: u53, period: u53 })),
  personality: maybe(fc.nat()),
  umask: maybe(fc.nat()),
  uid: u32,
  gid: u32,
  groups: few(u32),
  capabilities: maybe(fc.record({ bounding: u64, effective: u64, inheritable: u64, permitted: u64, ambient: u64 })),
  cwd: text,
  args: texts,
  env: texts,
  seccomp: maybe(
    fc.record({
      defaultAction: u32,
      flags: u32,
      architectures: few(u32),
      rules: few(fc.record({ action: u32, names: texts, args: few(fc.record({ index: u32, op: u32, value: u53, valueTwo: u53 })) })),
    }),
  ),
  startHooks: few(fc.record({ path: text, args: texts, env: texts, timeoutSeconds: u32 })),
  hookState: text,
});

/** One of them, always the same. */
const [sample] = fc.sample(anyPlan, { numRuns: 1, seed: 1 }) as [Plan];

test("every field is where plan.h has it, and nothing follows the last", (t) => {
  fc.assert(fc.property(anyPlan, (plan) => void t.deepEqual(decodePlan(encodePlan(plan)), { ...plan, rest: 0 })));
});

test("the reader of this test knows plan.h's version", (t) => {
  const header = readFileSync(join(repository, "native/launcher/plan.h"), "utf8");
  t.true(header.includes("plan_version = 1;"));
  t.is(Buffer.from(encodePlan(sample)).toString("latin1", 0, 4), "TSKP");
});

test("plans larger than the first buffer", (t) => {
  for (const length of [16_383, 16_384, 40_000, 1_000_000]) {
    const plan = { ...sample, hostname: "é".repeat(length / 2), args: Array.from({ length: 2000 }, (_, index) => `argument ${index}`), hookState: "" };
    t.deepEqual(decodePlan(encodePlan(plan)), { ...plan, rest: 0 });
  }
});

test("a NUL would end a string early and is refused", (t) => {
  t.throws(() => encodePlan({ ...sample, args: ["sh", "-c", "a\0b"] }), { message: 'a NUL character in "a\\u0000b"' });
  t.throws(() => encodePlan({ ...sample, env: ["A=\0"] }), { message: /a NUL character/ });
});
