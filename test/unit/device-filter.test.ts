/** agent/container/device-filter.ts: the BPF program run by a small interpreter, against what the rules say. */
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { deviceProgram } from "../../agent/container/device-filter.ts";
import type { DeviceRule } from "../../src/oci/spec.ts";
import { failure } from "./helpers.ts";

interface Asked {
  readonly type: "b" | "c";
  readonly access: string;
  readonly major: number;
  readonly minor: number;
}

const BITS: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };
const bitsOf = (access: string): number => [...access].reduce((bits, letter) => bits | (BITS[letter] ?? 0), 0);

interface Instruction {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
}

function disassemble(program: Uint8Array): Instruction[] {
  const bytes = Buffer.from(program);
  return Array.from({ length: bytes.length / 8 }, (_, index) => {
    const registers = bytes.readUInt8(index * 8 + 1);
    const [offset, imm] = [bytes.readInt16LE(index * 8 + 2), bytes.readInt32LE(index * 8 + 4)];
    return { code: bytes.readUInt8(index * 8), dst: registers & 15, src: registers >> 4, offset, imm };
  });
}

/** What the kernel would answer; throws where its verifier would refuse. */
function run(program: readonly Instruction[], { type, access, major, minor }: Asked): number {
  const context = [(bitsOf(access) << 16) | (type === "b" ? 1 : 2), major, minor];
  const registers: (number | undefined)[] = [undefined, 0];
  const value = (register: number): number => {
    const found = registers[register];
    if (found === undefined) throw new Error(`register ${register} is read before it is written`);
    return found;
  };
  for (let at = 0; ; at++) {
    const instruction = program[at];
    if (instruction === undefined) throw new Error("ran beyond the program's end");
    const { code, dst, src, offset, imm } = instruction;
    if (code === 0x61) registers[dst] = context[offset / 4];
    else if (code === 0xbc) registers[dst] = value(src);
    else if (code === 0xb4) registers[dst] = imm >>> 0;
    else if (code === 0x54) registers[dst] = (value(dst) & imm) >>> 0;
    else if (code === 0x74) registers[dst] = value(dst) >>> imm;
    else if (code === 0x56) at += value(dst) === imm >>> 0 ? 0 : offset;
    else if (code === 0x16) at += value(dst) === imm >>> 0 ? offset : 0;
    else if (code === 0x95) return value(0);
    else throw new Error(`unknown instruction ${code}`);
    if (offset < 0) throw new Error("a jump back");
  }
}

/** The verifier refuses a program with instructions that nothing leads to. */
function unreachable(program: readonly Instruction[]): number[] {
  const seen = new Set<number>();
  const open = [0];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (seen.has(at)) continue;
    seen.add(at);
    const { code = 0, offset = 0 } = program[at] ?? {};
    if (code === 0x56 || code === 0x16) open.push(at + 1 + offset);
    if (code !== 0x95) open.push(at + 1);
  }
  return program.flatMap((_, index) => (seen.has(index) ? [] : [index]));
}

function allows(t: ExecutionContext, rules: readonly DeviceRule[], asked: Asked): boolean {
  const program = disassemble(deviceProgram(rules));
  t.deepEqual(unreachable(program), []);
  return run(program, asked) === 1;
}

/** "c 1:3 rw": what is asked for. */
function ask(words: string): Asked {
  const [type, numbers = "", access = ""] = words.split(" ");
  const [major, minor] = numbers.split(":").map(Number);
  return { type: type === "b" ? "b" : "c", major: major ?? 0, minor: minor ?? 0, access };
}

/** "+c 1:* rw" allows, "-a *:* rwm" denies; `*` is any. */
function rule(words: string): DeviceRule {
  const [head = "", numbers = "*:*", access] = words.split(" ");
  const [major, minor] = numbers.split(":").map((number) => (number === "*" ? -1 : Number(number)));
  return { allow: head.startsWith("+"), type: head.slice(1) as "a", major, minor, ...(access === undefined ? {} : { access }) };
}

const DENY_ALL = "-a *:* rwm";

function check(t: ExecutionContext, rules: string[], allowed: string[], denied: string[]): void {
  for (const words of allowed) t.true(allows(t, rules.map(rule), ask(words)), `${rules} should allow ${words}`);
  for (const words of denied) t.false(allows(t, rules.map(rule), ask(words)), `${rules} should deny ${words}`);
}

test("no rule: only what every container may use", (t) => {
  const usual = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "136:0", "136:77"].map((numbers) => `c ${numbers} rwm`);
  check(t, [], [...usual, "c 10:200 m", "b 8:0 m"], ["c 10:200 r", "b 8:0 r", "b 8:0 rm", "c 1:1 w", "c 5:1 r", "b 1:3 r", "c 137:0 r"]);
});

test("the defaults hold whatever the rules deny", (t) => {
  check(t, [DENY_ALL], ["c 1:3 rw", "c 136:5 rwm", "b 8:0 m"], ["c 10:200 r", "b 8:0 rwm"]);
  check(t, ["-c 1:3 rwm", "-c *:* m"], ["c 1:3 rwm", "c 10:200 m"], []);
});

test("the last rule that matches decides", (t) => {
  check(t, [DENY_ALL, "+c 10:200 rwm"], ["c 10:200 rwm", "c 10:200 w"], ["c 10:201 r", "b 10:200 r"]);
  check(t, ["+c 10:* rwm", "-c 10:200 rwm"], ["c 10:201 rw"], ["c 10:200 r"]);
  check(t, ["-c 10:200 rwm", "+c 10:* rwm"], ["c 10:200 r", "c 10:201 rw"], ["c 11:200 r"]);
  check(t, ["+a *:* rwm", "-b *:* rwm"], ["c 77:8 rwm"], ["b 8:0 r"]);
});

test("a rule for everything ends the program: what was before it has no say", (t) => {
  const before = ["+c 10:1 rwm", "-c 10:2 rwm", "+b *:* r"].map(rule);
  for (const all of ["+a *:* rwm", "+a"]) {
    t.is(deviceProgram([...before, rule(all)]).length, deviceProgram([rule(all)]).length);
    check(t, ["-c 10:2 rwm", all], ["c 10:2 rwm", "b 255:255 rwm"], []);
  }
});

test("accesses: an allowing rule must have all that are asked for, a denying one any", (t) => {
  check(t, ["+c 10:200 r"], ["c 10:200 r", "c 10:200 m"], ["c 10:200 w", "c 10:200 rw", "c 10:200 rm"]);
  check(t, ["+c 10:200 rwm", "-c 10:200 w"], ["c 10:200 r", "c 10:200 rm"], ["c 10:200 w", "c 10:200 rw"]);
  check(t, ["+b 8:0"], ["b 8:0 rwm"], ["b 8:1 r"]);
});

test("accesses that several rules give to one device may be used at once", (t) => {
  check(t, [DENY_ALL, "+c 10:200 r", "+c 9:9 rwm", "+c 10:200 w"], ["c 10:200 rw", "c 10:200 r", "c 10:200 w"], ["c 10:200 rwm", "c 10:201 rw"]);
  check(t, ["+c 10:200 r", "-c 10:200 rwm", "+c 10:200 w"], ["c 10:200 w"], ["c 10:200 rw", "c 10:200 r"]);
});

test("u is c; a rule for a FIFO is for no device", (t) => {
  check(t, ["+u 10:200 rw"], ["c 10:200 rw"], ["b 10:200 rw"]);
  check(t, ["+p *:* rwm"], ["c 1:3 rw"], ["c 10:200 r", "b 8:0 r"]);
  check(t, ["+c 10:200 rw", "-p *:* rwm"], ["c 10:200 rw"], []);
});

test("numbers up to 2^32 - 1 are compared whole, larger ones are none", (t) => {
  check(t, ["+c 4294967295:2147483648 rw"], ["c 4294967295:2147483648 rw"], ["c 4294967295:0 r", "c 0:2147483648 r"]);
  t.throws(() => deviceProgram([rule("+c 4294967296:1 rw")]), failure("invalid", "linux.resources.devices: 4294967296 is no device number"));
});

const anyAccess = fc.subarray(["r", "w", "m"], { minLength: 1 }).map((letters) => letters.join(""));
const anyNumber = fc.integer({ min: -1, max: 3 });
const anyRule = fc.record({
  allow: fc.boolean(),
  type: fc.constantFrom("a" as const, "b" as const, "c" as const),
  major: anyNumber,
  minor: anyNumber,
  access: anyAccess,
});
const anyAsked = fc.record<Asked>({
  type: fc.constantFrom("b" as const, "c" as const),
  access: anyAccess,
  major: fc.integer({ min: 0, max: 3 }),
  minor: fc.integer({ min: 10, max: 13 }),
});

test("any list of rules, each for another device: the last match or no", (t) => {
  // No default but mknod has minor numbers from 10 on.
  const lists = fc.uniqueArray(anyRule, { selector: ({ type, major, minor }) => `${type} ${major}:${minor}`, maxLength: 12 });
  fc.assert(
    fc.property(lists, anyAsked, (list, asked) => {
      const rules = list.map((one) => ({ ...one, minor: one.minor < 0 ? -1 : one.minor + 10 }));
      const matching = rules.findLast(({ allow, type, major, minor, access }) => {
        const wanted = bitsOf(asked.access);
        const same = (type === "a" || type === asked.type) && (major < 0 || major === asked.major) && (minor < 0 || minor === asked.minor);
        return same && (allow ? (wanted & ~bitsOf(access)) === 0 : (wanted & bitsOf(access)) !== 0);
      });
      t.is(allows(t, rules, asked), asked.access === "m" || matching?.allow === true);
    }),
    { numRuns: 500 },
  );
});
