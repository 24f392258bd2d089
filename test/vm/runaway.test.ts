/**
 * Containers that take all they can get: those beside them go on, in the pod and in another, the host's share stays bounded, and `kill` and `delete`
 * work as ever.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { family } from "../../scripts/lib/processes.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { amount, describe, driver, hangLimitMs, type Outcome, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("runaway");
test.after.always("clean up", async () => await scratch.cleanUp());

const MIB = 2 ** 20;
const LIMITS = { memory: { limit: 96 * MIB, swap: 96 * MIB }, pids: { limit: 64 }, cpu: { quota: 50_000, period: 100_000 } };
/** The pod's machine: what its first container is limited to, and the base. */
const MACHINE_MIB = 512 + 256;
/** What host processes of the pod may have besides the guest's memory: node, QEMU, and what devices hold for the guest. */
const OWN_MIB = 400;
/** Logs, state, sockets: all that a pod has on the disk. */
const FOLDER_MIB = 4;
/** The matrix' deadline for any verb, and more in the testbed. */
const CALL_MS = hangLimitMs / 3;
/** Execs beside a runaway against the same without one, a moment before: it shares the processors with them, but holds nobody up. */
const MOST_SLOWER = 15;
const program = join(scratch.folder, "runaway-program");

test.before("a pod with a container in it", async (t) => {
  t.timeout(hangLimitMs);
  buildFixture("runaway", program);
  await startPod(scratch, "pod", (spec) => {
    spec.linux.resources = { memory: { limit: 512 * MIB } };
  });
  await scratch.running("beside", await joinPod(scratch, "pod"));
  await scratch.running("other"); // a machine of its own
});

async function threeExecs(t: ExecutionContext, id: string): Promise<number> {
  const before = Date.now();
  for (const word of ["one", "two", "three"]) {
    const outcome = await scratch.tskata(["exec", id, "echo", word], { timeoutMs: CALL_MS });
    t.deepEqual([outcome.timedOut, outcome.code, outcome.stdout], [false, 0, `${word}\n`], describe(outcome));
  }
  return Date.now() - before;
}

/** In milliseconds, by container: of the same pod, and of another. */
async function execsBeside(t: ExecutionContext): Promise<Record<"beside" | "other", number>> {
  return { beside: await threeExecs(t, "beside"), other: await threeExecs(t, "other") };
}

/** A verb that does its work within its deadline; what it did and how long it took. */
async function answered(t: ExecutionContext, args: string[]): Promise<string> {
  const { outcome, took } = await called(t, args);
  t.is(outcome.code, 0, `${args.join(" ")}: ${describe(outcome)}`);
  return took;
}

/** As answered; and of a guest that does not answer any more, that is told within the deadline. */
async function answeredOrTold(t: ExecutionContext, args: string[]): Promise<string> {
  const { outcome, took } = await called(t, args);
  if (outcome.code === 0) return took;
  t.regex(outcome.stderr, /did not answer Kill in 10 s"\n {2}likely cause: .*\n(?: {2}.*\n)* {2}virtual machine: still runs/, describe(outcome));
  return `${took}, unanswered`;
}

async function called(t: ExecutionContext, args: string[]): Promise<{ outcome: Outcome; took: string }> {
  const asked = Date.now();
  const outcome = await scratch.tskata(args, { timeoutMs: CALL_MS });
  t.false(outcome.timedOut, `${args.join(" ")}: ${describe(outcome)}`);
  return { outcome, took: `${args[0]} ${Date.now() - asked} ms` };
}

/** Privileged as far as it goes, and limited. */
function runaway(args: readonly string[], spec: Spec, limits: Record<string, unknown> = LIMITS): void {
  spec.process.args = ["/runaway", ...args];
  const all = ["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_OVERRIDE", "CAP_SYS_RESOURCE"];
  spec.process.capabilities = { bounding: all, effective: all, permitted: all };
  spec.linux.resources = { ...limits, devices: [{ allow: true, access: "rwm" }] };
  delete spec.linux.seccomp;
  spec.mounts.push({ destination: "/runaway", type: "bind", source: program, options: ["bind", "ro"] });
}

interface Stats {
  readonly pids: { readonly current: number };
  readonly cpu: { readonly usage: { readonly total: number }; readonly throttling: { readonly throttledPeriods: number } };
}

async function stats(id: string): Promise<Stats> {
  return (JSON.parse(await scratch.ok(["events", "--stats", id])) as { data: Stats }).data;
}

/** The last number that the program has written after its name. */
function done(id: string, what: string): number {
  return Number([...scratch.output(id).matchAll(new RegExp(`^${what} (\\d+)$`, "gm"))].at(-1)?.[1] ?? -1);
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + (amount === 1 ? hangLimitMs / 3 : hangLimitMs);
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`${what} has not come to pass\n${scratch.logs()}`);
    await after(200);
  }
}

/** A field of /proc/<pid>/status in MiB. */
function statusMib(pid: number, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

/** What the pod takes from the host: guest memory is the machine's size at most, whatever runs in it. */
function checkHost(t: ExecutionContext, pod: string): void {
  // QEMU's guest memory is a file's, so what is anonymous is the processes' own.
  const guest = driver() === "kvm" ? MACHINE_MIB : 0;
  const own = family(scratch.pod(pod).sandboxPid)
    .map((pid) => statusMib(pid, "RssAnon"))
    .reduce((sum, part) => sum + part, 0);
  t.true(own <= guest + OWN_MIB, `${own} MiB of memory`);
  const folder = join(scratch.root, pod, "pod");
  const files = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile());
  const onDisk = files.map(({ name }) => statSync(join(folder, name)).size).reduce((sum, part) => sum + part, 0) / MIB;
  t.true(onDisk <= FOLDER_MIB, `${onDisk} MiB in the pod's folder`);
  t.log(`${own.toFixed(0)} MiB of memory, ${onDisk.toFixed(1)} MiB on disk`);
}

interface Runaway {
  readonly name: string;
  readonly args: readonly string[];
  /** All of them, unless told. */
  readonly limits?: Record<string, unknown>;
  readonly atIt: (id: string) => boolean | Promise<boolean>;
}

/** What floods a device is not slowed by a CPU limit. */
const FLOOD = { memory: LIMITS.memory, pids: LIMITS.pids };

const RUNAWAYS: readonly Runaway[] = [
  { name: "fork bomb", args: ["forks"], atIt: async (id) => (await stats(id)).pids.current >= LIMITS.pids.limit },
  { name: "memory hog", args: ["memory"], atIt: (id) => done(id, "memory") >= 2 },
  { name: "100 % CPU", args: ["processor", "8"], atIt: async (id) => (await stats(id)).cpu.throttling.throttledPeriods >= 5 },
  { name: "console flood", args: ["console", "4"], limits: FLOOD, atIt: (id) => done(id, "console") >= 3000 * amount },
  { name: "vsock connection flood", args: ["vsock", "8"], limits: FLOOD, atIt: (id) => done(id, "vsock") >= 1000 * amount },
  { name: "FUSE flood", args: ["files", "16", "/tmp"], limits: FLOOD, atIt: (id) => done(id, "files") >= 200 * amount },
];

for (const { name, args, limits, atIt } of RUNAWAYS) {
  test.serial(`${name}: the container beside it goes on, kill and delete answer`, async (t) => {
    t.timeout(hangLimitMs * 3);
    const id = args[0] ?? "";
    const alone = await execsBeside(t);
    const joined = await joinPod(scratch, "pod");
    await scratch.running(id, (spec) => {
      joined(spec);
      runaway(args, spec, limits);
    });
    await until(`${name} at it`, async () => await atIt(id));
    const beside = await execsBeside(t);
    for (const where of ["beside", "other"] as const) {
      t.log(`three execs ${where === "beside" ? "in the pod" : "in another pod"}: ${alone[where]} ms without it, ${beside[where]} ms beside it`);
      t.true(beside[where] <= MOST_SLOWER * alone[where], `${where}: ${alone[where]} ms, then ${beside[where]} ms`);
    }
    t.is((await scratch.state(id)).status, "running");
    checkHost(t, "pod");
    const killed = await answered(t, ["kill", "--all", id, "KILL"]);
    await scratch.until(id, "stopped");
    t.log(`${killed}; ${await answered(t, ["delete", id])}`);
    t.is(await scratch.sh("beside", "echo after"), "after");
    t.is((await stats("pod")).pids.current, 1);
  });
}

test.serial("the pod goes whole, and leaves nothing", async (t) => {
  t.timeout(hangLimitMs);
  for (const id of ["beside", "pod", "other"]) await scratch.ok(["delete", "--force", id]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("everything at once without any limit: the pod is deleted within its deadline", async (t) => {
  t.timeout(hangLimitMs * 3);
  await startPod(scratch, "wild", (spec) => {
    spec.linux.resources = { memory: { limit: 512 * MIB } };
  });
  const joined = await joinPod(scratch, "wild");
  const all = "/runaway files 16 /tmp & /runaway vsock 8 & /runaway console 4 & /runaway memory 2 & sleep 10; exec /runaway forks";
  await scratch.running("everything", (spec) => {
    joined(spec);
    runaway([], spec, {});
    spec.process.args = ["sh", "-c", all];
  });
  const begun = (): string[] => ["files", "vsock", "console", "memory"].filter((what) => done("everything", what) > 0);
  // Who comes first takes what the others need to tell of themselves; in the testbed a line on the console takes so long that it is that one alone.
  const least = amount === 1 ? 2 : 1;
  await until(`at least ${least} at it`, () => begun().length >= least);
  t.log(`at it: ${begun().join(", ")}`);
  // Until the forks are all that the guest has room for; it need not answer then.
  await after(15_000);
  checkHost(t, "wild");
  for (const id of ["everything", "wild"]) {
    const killed = await answeredOrTold(t, ["kill", id, "KILL"]);
    t.log(`${id}: ${killed}; ${await answered(t, ["delete", "--force", id])}`);
  }
  t.deepEqual(scratch.leftovers(), []);
});
