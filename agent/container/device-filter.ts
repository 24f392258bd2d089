/**
 * linux.resources.devices as a BPF program of type CGROUP_DEVICE (cgroup v2 has no devices files).
 *
 * The program walks the rules from the last to the first; the first that matches decides, and no rule means no. An allowing
 * rule matches when it has every access asked for, a denying one when it has any of them. Rules for FIFOs say nothing: no
 * cgroup guards those.
 */
import { TskataError } from "../../src/base/errors.ts";
import type { DeviceRule } from "../../src/oci/spec.ts";

/** bpf_cgroup_dev_ctx: access_type = access << 16 | type; then major, minor. */
const TYPES: Readonly<Record<string, number>> = { b: 1, c: 2, u: 2 };
const ACCESS: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };
const ALL_ACCESS = 7;

/** What every container may use besides its own rules, as runc: nodes may be made, the usual ones opened. */
const ALWAYS: readonly DeviceRule[] = [
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  ...[
    [1, 3],
    [1, 5],
    [1, 7],
    [1, 8],
    [1, 9],
    [5, 0],
    [5, 2],
    [136, -1],
  ].map(([major = -1, minor = -1]): DeviceRule => ({ allow: true, type: "c", major, minor, access: "rwm" })),
];

// Opcodes (linux/bpf_common.h, linux/bpf.h), all of 32-bit width but exit and the load.
const LDX_W = 0x61;
const MOV_REG = 0xbc;
const MOV_IMM = 0xb4;
const AND_IMM = 0x54;
const RSH_IMM = 0x74;
const JNE_IMM = 0x56;
const JEQ_IMM = 0x16;
const EXIT = 0x95;

const CONTEXT = 1;
const TYPE = 2;
const ACCESS_ASKED = 3;
const MAJOR = 4;
const MINOR = 5;
const SCRATCH = 6;

interface Instruction {
  readonly code: number;
  readonly dst?: number;
  readonly src?: number;
  /** "next": to the end of this rule. */
  readonly offset?: number | "next";
  readonly imm?: number;
}

export function deviceProgram(rules: readonly DeviceRule[]): Uint8Array {
  const program: Instruction[] = [
    { code: LDX_W, dst: TYPE, src: CONTEXT, offset: 0 },
    { code: MOV_REG, dst: ACCESS_ASKED, src: TYPE },
    { code: AND_IMM, dst: TYPE, imm: 0xffff },
    { code: RSH_IMM, dst: ACCESS_ASKED, imm: 16 },
    { code: LDX_W, dst: MAJOR, src: CONTEXT, offset: 4 },
    { code: LDX_W, dst: MINOR, src: CONTEXT, offset: 8 },
  ];
  const devices = rules.filter(({ type }) => type !== "p");
  for (const rule of [...unite(devices), ...ALWAYS].toReversed()) {
    program.push(...ruleInstructions(rule));
    // The verifier refuses instructions that nothing leads to.
    if (matchesAll(rule)) return assemble(program);
  }
  program.push({ code: MOV_IMM, dst: 0, imm: 0 }, { code: EXIT });
  return assemble(program);
}

/** "c 1:3 r" and "c 1:3 w" allow reading and writing at once: an allowing rule has the accesses of those before it for the same device. */
function unite(rules: readonly DeviceRule[]): DeviceRule[] {
  return rules.map((rule, index) => {
    if (!rule.allow) return rule;
    const lastDenied = rules.findLastIndex((other, at) => at < index && !other.allow);
    const same = rules.slice(lastDenied + 1, index).filter((other) => other.type === rule.type && other.major === rule.major && other.minor === rule.minor);
    return { ...rule, access: [...same, rule].map(({ access = "rwm" }) => access).join("") };
  });
}

function matchesAll(rule: DeviceRule): boolean {
  return TYPES[rule.type ?? "a"] === undefined && accessBits(rule) === ALL_ACCESS && !isNumber(rule.major) && !isNumber(rule.minor);
}

function accessBits(rule: DeviceRule): number {
  return [...(rule.access ?? "rwm")].reduce((bits, letter) => bits | (ACCESS[letter] ?? 0), 0);
}

function ruleInstructions(rule: DeviceRule): Instruction[] {
  const body: Instruction[] = [];
  const type = TYPES[rule.type ?? "a"];
  const access = accessBits(rule);
  if (type !== undefined) body.push({ code: JNE_IMM, dst: TYPE, imm: type, offset: "next" });
  if (access !== ALL_ACCESS) {
    body.push({ code: MOV_REG, dst: SCRATCH, src: ACCESS_ASKED });
    body.push({ code: AND_IMM, dst: SCRATCH, imm: rule.allow ? ~access & ALL_ACCESS : access });
    body.push({ code: rule.allow ? JNE_IMM : JEQ_IMM, dst: SCRATCH, imm: 0, offset: "next" });
  }
  if (isNumber(rule.major)) body.push({ code: JNE_IMM, dst: MAJOR, imm: rule.major, offset: "next" });
  if (isNumber(rule.minor)) body.push({ code: JNE_IMM, dst: MINOR, imm: rule.minor, offset: "next" });
  body.push({ code: MOV_IMM, dst: 0, imm: rule.allow ? 1 : 0 }, { code: EXIT });
  return body.map((instruction, index) => (instruction.offset === "next" ? { ...instruction, offset: body.length - index - 1 } : instruction));
}

/** -1 and absent are "any". */
function isNumber(value: number | undefined): value is number {
  if (value !== undefined && value > 0xffff_ffff) throw new TskataError("invalid", `linux.resources.devices: ${value} is no device number`);
  return value !== undefined && value >= 0;
}

/** struct bpf_insn: code:8 dst:4 src:4 off:16 imm:32, little-endian. */
function assemble(program: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, { code, dst = 0, src = 0, offset = 0, imm = 0 }] of program.entries()) {
    bytes.writeUInt8(code, index * 8);
    bytes.writeUInt8((src << 4) | dst, index * 8 + 1);
    bytes.writeInt16LE(offset === "next" ? 0 : offset, index * 8 + 2);
    bytes.writeInt32LE(imm | 0, index * 8 + 4);
  }
  return bytes;
}
