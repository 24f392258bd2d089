/** agent/container/process-plan.ts: user, limits, scheduling, capabilities and seccomp of a process. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { planSeccomp, processPart } from "../../agent/container/process-plan.ts";
import { UserDatabase } from "../../agent/container/user.ts";
import type { Process, Seccomp } from "../../src/oci/spec.ts";
import { failure, temporaryFolder } from "./helpers.ts";

function part(process: Partial<Process>): ReturnType<typeof processPart> {
  return processPart({ cwd: "/", ...process }, new UserDatabase("/no/such"));
}

function passwd(t: ExecutionContext): UserDatabase {
  const root = temporaryFolder(t);
  mkdirSync(join(root, "etc"));
  writeFileSync(join(root, "etc/passwd"), "bob:x:7:8::/home/bob:\n");
  return new UserDatabase(root);
}

test("what is not given", (t) => {
  t.deepEqual(part({}), {
    ...{ terminal: false, noNewPrivileges: false, rows: 0, columns: 0, rlimits: [], oomScoreAdj: undefined, ioPriority: undefined },
    ...{ scheduler: undefined, umask: undefined, uid: 0, gid: 0, groups: [], capabilities: undefined, cwd: "/", args: [], env: ["HOME=/"] },
  });
});

test("HOME is the user's unless the config has one", (t) => {
  const users = passwd(t);
  const env = (list: string[], uid = 7): readonly string[] => processPart({ cwd: "/", env: list, user: { uid } }, users).env;
  t.deepEqual(env(["A=1"]), ["A=1", "HOME=/home/bob"]);
  t.deepEqual(env(["HOME=/x", "A=1"]), ["HOME=/x", "A=1"]);
  t.deepEqual(env(["HOME=", "A=1"]), ["A=1", "HOME=/home/bob"]);
  t.deepEqual(env(["HOMER=1"], 9), ["HOMER=1", "HOME=/"]);
  t.deepEqual(processPart({ cwd: "/", user: { username: "bob", umask: 0o27 } }, users).umask, 0o27);
});

test("limits by their numbers; 2^64 - 1 survives JSON", (t) => {
  const none = Number(JSON.parse("18446744073709551615"));
  const { rlimits } = part({
    rlimits: [
      { type: "RLIMIT_NOFILE", soft: 1024, hard: none },
      { type: "RLIMIT_CPU", soft: 0, hard: 1 },
      { type: "RLIMIT_RTTIME", soft: 2, hard: 2 },
    ],
  });
  t.deepEqual(rlimits, [
    { resource: 7, soft: 1024n, hard: 0xffff_ffff_ffff_ffffn },
    { resource: 0, soft: 0n, hard: 1n },
    { resource: 15, soft: 2n, hard: 2n },
  ]);
  for (const type of ["RLIMIT_", "NOFILE", "RLIMIT_nofile", "RLIMIT_X"])
    t.throws(() => part({ rlimits: [{ type, soft: 1, hard: 1 }] }), failure("invalid", `process.rlimits: invalid rlimit type: ${type}`));
});

test("io priority and scheduler; no name of Object's is one of theirs", (t) => {
  t.is(part({ ioPriority: { class: "IOPRIO_CLASS_BE", priority: 4 } }).ioPriority, (2 << 13) | 4);
  t.is(part({ ioPriority: { class: "IOPRIO_CLASS_IDLE" } }).ioPriority, 3 << 13);
  const scheduler = { policy: "SCHED_DEADLINE", runtime: 1, deadline: 2, period: 3, flags: ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_RESET_ON_FORK"] };
  t.deepEqual(part({ scheduler }).scheduler, { policy: 6, nice: 0, priority: 0, runtime: 1, deadline: 2, period: 3, flags: 3 });
  for (const name of ["toString", "constructor", "SCHED_NONE", ""]) {
    t.throws(() => part({ ioPriority: { class: name } }), failure("invalid", /^process\.ioPriority\.class: /), name);
    t.throws(() => part({ scheduler: { policy: name } }), failure("invalid", /^process\.scheduler\.policy: /), name);
    t.throws(() => part({ scheduler: { policy: "SCHED_FIFO", flags: [name] } }), failure("invalid", /^process\.scheduler\.flags: /), name);
  }
});

test("capabilities are bits by number; names of newer kernels are left out", (t) => {
  const { capabilities } = part({
    capabilities: { bounding: ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_FUTURE"], effective: ["CAP_CHOWN", "CAP_CHOWN"] },
  });
  t.deepEqual(capabilities, { bounding: 1n | (1n << 21n) | (1n << 40n), effective: 1n, inheritable: 0n, permitted: 0n, ambient: 0n });
});

test("seccomp: actions with their numbers, arguments, architectures of this guest", (t) => {
  t.is(planSeccomp(undefined), undefined);
  const seccomp: Seccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86", "constructor"],
    flags: ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
    syscalls: [
      { names: ["read", "write"], action: "SCMP_ACT_ALLOW" },
      { names: ["clone"], action: "SCMP_ACT_TRACE", errnoRet: 5, args: [{ index: 1, value: 2 ** 52, valueTwo: 9, op: "SCMP_CMP_MASKED_EQ" }] },
      { names: ["x"], action: "SCMP_ACT_KILL_PROCESS", errnoRet: 5, args: [{ index: 0, value: 1, op: "SCMP_CMP_NE" }] },
    ],
  };
  t.deepEqual(planSeccomp(seccomp), {
    defaultAction: 0x0005_0001,
    flags: 3,
    architectures: [0xc000_003e, 0x4000_0003],
    rules: [
      { action: 0x7fff_0000, names: ["read", "write"], args: [] },
      { action: 0x7ff0_0005, names: ["clone"], args: [{ index: 1, op: 7, value: 2 ** 52, valueTwo: 9 }] },
      { action: 0x8000_0000, names: ["x"], args: [{ index: 0, op: 1, value: 1, valueTwo: 0 }] },
    ],
  });
  t.is(planSeccomp({ defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 38 })?.defaultAction, 0x0005_0026);
  t.throws(() => planSeccomp({ defaultAction: "SCMP_ACT_NOTIFY" }), failure("invalid", 'linux.seccomp: "SCMP_ACT_NOTIFY" is unknown'));
  t.throws(() => planSeccomp({ defaultAction: "SCMP_ACT_LOG", flags: ["toString"] }), failure("invalid", 'linux.seccomp.flags: "toString" is unknown'));
});
