/** The part of a plan that any process has: user, capabilities, limits, scheduling, seccomp. From the OCI process object. */
import { constants } from "node:os";
import { TskataError } from "../../src/base/errors.ts";
import { capabilities } from "../../src/oci/features.ts";
import type { Capabilities, Linux, Process, Rlimit, Seccomp } from "../../src/oci/spec.ts";
import type { Plan, PlanCapabilities, PlanScheduler, PlanSeccomp, PlanSeccompRule } from "./plan.ts";
import type { UserDatabase } from "./user.ts";

type ProcessPart = Pick<
  Plan,
  | "terminal"
  | "noNewPrivileges"
  | "rows"
  | "columns"
  | "rlimits"
  | "oomScoreAdj"
  | "ioPriority"
  | "scheduler"
  | "umask"
  | "uid"
  | "gid"
  | "groups"
  | "capabilities"
  | "cwd"
  | "args"
  | "env"
>;

export function processPart(process: Process, users: UserDatabase): ProcessPart {
  const user = users.resolve(process.user ?? {});
  return {
    terminal: process.terminal ?? false,
    noNewPrivileges: process.noNewPrivileges ?? false,
    rows: process.consoleSize?.height ?? 0,
    columns: process.consoleSize?.width ?? 0,
    rlimits: (process.rlimits ?? []).map(planRlimit),
    oomScoreAdj: process.oomScoreAdj,
    ioPriority: planIoPriority(process.ioPriority),
    scheduler: planScheduler(process.scheduler),
    umask: process.user?.umask,
    ...user,
    capabilities: process.capabilities === undefined ? undefined : planCapabilities(process.capabilities),
    cwd: process.cwd,
    args: process.args ?? [],
    env: withHome(process.env ?? [], () => users.home(user.uid)),
  };
}

/** runc sets HOME when the config does not. */
function withHome(env: readonly string[], home: () => string): string[] {
  return env.some((entry) => entry.startsWith("HOME=") && entry !== "HOME=") ? [...env] : [...env.filter((entry) => entry !== "HOME="), `HOME=${home()}`];
}

// -- limits ----------------------------------------------------------------------------------------------------------------

/** asm-generic/resource.h, the same on x86-64 and arm64. */
const RLIMITS = [
  "CPU",
  "FSIZE",
  "DATA",
  "STACK",
  "CORE",
  "RSS",
  "NPROC",
  "NOFILE",
  "MEMLOCK",
  "AS",
  "LOCKS",
  "SIGPENDING",
  "MSGQUEUE",
  "NICE",
  "RTPRIO",
  "RTTIME",
];
const INFINITY = (1n << 64n) - 1n;

function planRlimit({ type, soft, hard }: Rlimit): Plan["rlimits"][number] {
  const resource = RLIMITS.findIndex((name) => `RLIMIT_${name}` === type);
  if (resource < 0) throw new TskataError("invalid", `process.rlimits: invalid rlimit type: ${type}`);
  return { resource, soft: exact(soft), hard: exact(hard) };
}

/** JSON's 2^64 - 1 arrives as 2^64. */
function exact(value: number): bigint {
  const big = BigInt(value);
  return big > INFINITY ? INFINITY : big;
}

const IO_CLASSES: Readonly<Record<string, number>> = { IOPRIO_CLASS_RT: 1, IOPRIO_CLASS_BE: 2, IOPRIO_CLASS_IDLE: 3 };
const IO_CLASS_SHIFT = 13;

function planIoPriority(ioPriority: Process["ioPriority"]): number | undefined {
  if (ioPriority === undefined) return undefined;
  return (known(IO_CLASSES, ioPriority.class, "process.ioPriority.class") << IO_CLASS_SHIFT) | (ioPriority.priority ?? 0);
}

const POLICIES: Readonly<Record<string, number>> = { SCHED_OTHER: 0, SCHED_FIFO: 1, SCHED_RR: 2, SCHED_BATCH: 3, SCHED_IDLE: 5, SCHED_DEADLINE: 6 };
const SCHEDULER_FLAGS: Readonly<Record<string, number>> = {
  SCHED_FLAG_RESET_ON_FORK: 1,
  SCHED_FLAG_RECLAIM: 2,
  SCHED_FLAG_DL_OVERRUN: 4,
  SCHED_FLAG_KEEP_POLICY: 8,
  SCHED_FLAG_KEEP_PARAMS: 16,
  SCHED_FLAG_UTIL_CLAMP_MIN: 32,
  SCHED_FLAG_UTIL_CLAMP_MAX: 64,
};

function planScheduler(scheduler: Process["scheduler"]): PlanScheduler | undefined {
  if (scheduler === undefined) return undefined;
  const policy = known(POLICIES, scheduler.policy, "process.scheduler.policy");
  const { nice = 0, priority = 0, runtime = 0, deadline = 0, period = 0, flags = [] } = scheduler;
  return {
    policy,
    nice,
    priority,
    runtime,
    deadline,
    period,
    flags: flags.reduce((bits, flag) => bits | known(SCHEDULER_FLAGS, flag, "process.scheduler.flags"), 0),
  };
}

function known(table: Readonly<Record<string, number>>, name: string, where: string): number {
  const value = Object.hasOwn(table, name) ? table[name] : undefined;
  if (value === undefined) throw new TskataError("invalid", `${where}: "${name}" is unknown`);
  return value;
}

// -- capabilities ------------------------------------------------------------------------------------------------------------

/** A name this does not know is ignored, as runc does with a warning: engines list those of newer kernels. */
function capabilityBits(names: readonly string[] = []): bigint {
  return names.reduce((bits, name) => {
    const number = capabilities().indexOf(name.startsWith("CAP_") ? name : `CAP_${name}`);
    return number < 0 ? bits : bits | (1n << BigInt(number));
  }, 0n);
}

function planCapabilities(sets: Capabilities): PlanCapabilities {
  return {
    bounding: capabilityBits(sets.bounding),
    effective: capabilityBits(sets.effective),
    inheritable: capabilityBits(sets.inheritable),
    permitted: capabilityBits(sets.permitted),
    ambient: capabilityBits(sets.ambient),
  };
}

// -- seccomp -----------------------------------------------------------------------------------------------------------------

/** libseccomp's SCMP_ACT_*; the low 16 bits of ERRNO and TRACE are a number. */
const ACTIONS: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: 0,
  SCMP_ACT_KILL_THREAD: 0,
  SCMP_ACT_KILL_PROCESS: 0x8000_0000,
  SCMP_ACT_TRAP: 0x0003_0000,
  SCMP_ACT_ERRNO: 0x0005_0000,
  SCMP_ACT_TRACE: 0x7ff0_0000,
  SCMP_ACT_LOG: 0x7ffc_0000,
  SCMP_ACT_ALLOW: 0x7fff_0000,
};
/** enum scmp_compare. */
const OPERATORS = ["", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
/** AUDIT_ARCH_* (and libseccomp's own number for x32). Others are left out: no program of theirs can run in this guest. */
const ARCHITECTURES: Readonly<Record<string, number>> = {
  SCMP_ARCH_X86: 0x4000_0003,
  SCMP_ARCH_X86_64: 0xc000_003e,
  SCMP_ARCH_X32: 0x4000_003e,
};
const FILTER_FLAGS: Readonly<Record<string, number>> = { SECCOMP_FILTER_FLAG_TSYNC: 1, SECCOMP_FILTER_FLAG_LOG: 2, SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4 };

export function planSeccomp(seccomp: Linux["seccomp"]): PlanSeccomp | undefined {
  if (seccomp === undefined) return undefined;
  return {
    defaultAction: action(seccomp.defaultAction, seccomp.defaultErrnoRet),
    flags: (seccomp.flags ?? []).reduce((bits, flag) => bits | known(FILTER_FLAGS, flag, "linux.seccomp.flags"), 0),
    architectures: (seccomp.architectures ?? []).flatMap((name) => (Object.hasOwn(ARCHITECTURES, name) ? (ARCHITECTURES[name] ?? []) : [])),
    rules: (seccomp.syscalls ?? []).map(planRule),
  };
}

function action(name: string, errno: number | undefined): number {
  const base = known(ACTIONS, name, "linux.seccomp");
  const takesNumber = name === "SCMP_ACT_ERRNO" || name === "SCMP_ACT_TRACE";
  return takesNumber ? base | ((errno ?? constants.errno.EPERM) & 0xffff) : base;
}

function planRule(rule: NonNullable<Seccomp["syscalls"]>[number]): PlanSeccompRule {
  const args = (rule.args ?? []).map(({ index, op, value, valueTwo = 0 }) => ({ index, op: OPERATORS.indexOf(op), value, valueTwo }));
  return { action: action(rule.action, rule.errnoRet), names: rule.names, args };
}
