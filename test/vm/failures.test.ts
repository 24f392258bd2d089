/** Every failure of src/base/failures.ts, provoked: told with its phase, its likely cause and what to do, and nothing stays behind. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { programGuest, scriptedGuest } from "../../scripts/lib/scripted-guest.ts";
import { FAILURES, type FailureCode } from "../../src/base/failures.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { TEST_DISK } from "../helpers/host.ts";
import { amount, binary, describe, driver, hangLimitMs, type Outcome, outcomeOf, repository, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("failures");
test.after.always("clean up", async () => await scratch.cleanUp());

const BOOT = "boot until the agent listens";
const provoked = new Set<FailureCode>();

interface Expected {
  readonly failure: FailureCode;
  readonly phase: string;
  /** The first line after the phase and its time. */
  readonly what: RegExp;
  /** The line about the machine. */
  readonly machine?: RegExp;
  /** One of the console's last lines. */
  readonly console?: RegExp;
  /** One of the hypervisor's. */
  readonly hypervisor?: RegExp;
}

function checkMessage(t: ExecutionContext, msg: string, { failure, phase, what, machine, console, hypervisor }: Expected): void {
  const [first = "", ...rest] = msg.split("\n");
  t.regex(first, new RegExp(`^runtime (run|create) failed in phase "${phase}" after \\d+\\.\\d s: `), msg);
  t.regex(first.replace(/^.*? s: /, ""), what, msg);
  const { cause, remedy } = FAILURES[failure];
  t.deepEqual(rest.slice(0, 2), [`  likely cause: ${cause}`, `  what to do: ${remedy}`], msg);
  const said = rest.find((line) => line.startsWith("  virtual machine: "));
  if (machine === undefined) t.is(said, undefined, msg);
  else t.regex(said ?? "", machine, msg);
  if (console !== undefined)
    t.true(
      excerpt(rest, "guest console").some((line) => console.test(line)),
      msg,
    );
  if (hypervisor !== undefined)
    t.true(
      excerpt(rest, "hypervisor's log").some((line) => hypervisor.test(line)),
      msg,
    );
  provoked.add(failure);
}

function excerpt(lines: readonly string[], log: string): string[] {
  const from = lines.indexOf(`  last lines of the ${log}:`) + 1;
  const length = lines.slice(from).findIndex((line) => !line.startsWith("    "));
  return from === 0 ? [] : lines.slice(from, length === -1 ? undefined : from + length);
}

interface Start {
  readonly config: string;
  readonly edit?: (spec: Spec) => void;
  /** While it starts. */
  readonly meanwhile?: (id: string) => Promise<void>;
}

/** A `run` that fails, as its caller reads it: the last line of --log, and the same on stderr. */
async function fails(t: ExecutionContext, id: string, { config, edit, meanwhile }: Start, expected: Expected): Promise<void> {
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle(edit);
  const { flags, told } = logging(id);
  const running = scratch.tskata([...flags, "run", "--bundle", bundle, id], { env: { TSKATA_CONFIG: config } });
  await meanwhile?.(id);
  checkMessage(t, told(t, await running), expected);
  t.deepEqual(scratch.leftovers(), []);
}

interface Logging {
  readonly flags: readonly string[];
  /** The last line of --log, when the command has failed; stderr ends with it. */
  readonly told: (t: ExecutionContext, outcome: Outcome) => string;
}

function logging(name: string): Logging {
  const log = join(scratch.folder, `${name}.json`);
  const told = (t: ExecutionContext, outcome: Outcome): string => {
    t.is(outcome.code, 1, describe(outcome));
    const lines = readFileSync(log, "utf8").trimEnd().split("\n");
    const { level, msg = "", time } = JSON.parse(lines.at(-1) ?? "") as Record<string, string>;
    t.is(level, "error");
    t.regex(time ?? "", /^\d{4}-\d\d-\d\dT/);
    t.true(outcome.stderr.endsWith(`${msg}\n`), describe(outcome));
    return msg;
  };
  return { flags: ["--log", log, "--log-format", "json"], told };
}

const guest = (name: string, image: string, more = ""): string => scratch.config(name, `[guest]\nimage = ${JSON.stringify(image)}\n${more}`);
const scripted = (name: string, script: string, more = ""): string => guest(name, scriptedGuest(scratch.folder, name, script), more);
const restarted = (): RegExp => new RegExp(`: the guest (restarted or powered off|had a triple fault.*); driver ${driver()}.*, 1 vCPU, \\d+ MiB$`);

test.serial("kernel panic", async (t) => {
  const config = scratch.config("panics", '[guest]\nkernel_parameters = ["init=/no/such"]\n');
  const what = /^the guest kernel panicked: Requested init \/no\/such failed \(error -2\)/;
  await fails(t, "panics", { config }, { failure: "kernel-panic", phase: BOOT, what, machine: restarted(), console: /Kernel panic - not syncing/ });
});

test.serial("agent never answers", async (t) => {
  const seconds = amount === 1 ? 12 : 60; // it has to get that far
  const config = scripted("sleeps", "echo the agent sleeps; exec sleep 1000", `[sandbox]\nstart_timeout_s = ${seconds}\n`);
  const machine = new RegExp(`: still runs when the time is over; driver ${driver()}`);
  const what = new RegExp(`^the agent in the guest has not answered in ${seconds} s$`);
  await fails(t, "sleeps", { config }, { failure: "agent-silent", phase: BOOT, what, machine, console: /the agent sleeps/ });
});

test.serial("agent crashes: it exits, is killed by a fault of its own, node throws before it", async (t) => {
  const crashed = { failure: "agent-crashed", phase: BOOT, machine: restarted() } as const;
  const exits = scripted("exits", "echo the agent says goodbye; exit 3");
  await fails(t, "exits", { config: exits }, { ...crashed, what: /^the agent in the guest exited with 3$/, console: /the agent says goodbye/ });

  const program = join(scratch.folder, "crash");
  buildFixture("crash", program);
  const falls = guest("falls", programGuest(scratch.folder, "falls", program));
  await fails(t, "falls", { config: falls }, { ...crashed, what: /^the agent in the guest was killed by signal 11$/, console: /the agent falls/ });

  // The kernel hands a parameter that it does not know to process 1 as its environment.
  const throws = scratch.config("throws", '[guest]\nkernel_parameters = ["NODE_OPTIONS=--require=/no/such/module"]\n');
  await fails(
    t,
    "throws",
    { config: throws },
    { ...crashed, what: /^the agent in the guest exited with 1$/, console: /no\/such\/module|node:internal|Node\.js v/ },
  );
});

test.serial("guest restarts", async (t) => {
  const what = /^the virtual machine has ended: the guest restarted or powered off$/;
  await fails(t, "restarts", { config: scripted("restarts", "reboot -f") }, { failure: "guest-restarted", phase: BOOT, what, machine: restarted() });
});

test.serial("guest runs out of memory: its process 1 takes all, or there never was enough", async (t) => {
  const small = (mib: number): string => `default_memory_mib = 1\nbase_memory_mib = ${mib}\n`;
  const hog = scripted("hog", "exec tail /dev/zero", small(71));
  const starved = { failure: "guest-out-of-memory", phase: BOOT, machine: restarted() } as const;
  const what = /^the guest ran out of memory: the guest kernel panicked: System is deadlocked on memory$/;
  await fails(t, "hog", { config: hog }, { ...starved, what, console: /System is deadlocked on memory/ });

  // Too little for the kernel itself, which can't even say so. Our own machine sees that before it runs.
  const config = scratch.config("tiny", `[guest]\n${small(23)}[sandbox]\nstart_timeout_s = 20\n`);
  const tooBig = /^the guest has 24 MiB of memory, and its kernel \S+ takes \d+$/;
  if (driver() === "kvm") return await fails(t, "tiny", { config }, { failure: "guest-out-of-memory", phase: "start the hypervisor", what: tooBig });
  const either = new RegExp(`${restarted().source}|: still runs when the time is over; driver`);
  await fails(t, "tiny", { config }, { ...starved, what: /^the guest has 24 MiB of memory, and needs 64: /, machine: either });
});

/** The guest's own image with these bytes of it changed, its checksum as it was. */
function damagedImage(name: string, change: (image: Buffer) => void, withChecksum = true): string {
  const whole = join(repository, "dist/guest/image.erofs");
  const file = join(scratch.folder, `${name}.erofs`);
  const image = readFileSync(whole);
  change(image);
  writeFileSync(file, image);
  if (withChecksum) copyFileSync(`${whole}.sha256`, `${file}.sha256`);
  return guest(name, file);
}

test.serial("image is corrupt: in its superblock, in a file, in its root folder", async (t) => {
  const corrupt = { failure: "image-corrupt" } as const;
  const flip = (image: Buffer, at: number, count = 1): void => {
    for (let index = at; index < at + count; index++) image.writeUInt8((image[index] ?? 0) ^ 0xff, index);
  };
  const superblock = damagedImage("superblock", (image) => flip(image, 1024 + 40));
  const what = /^guest image \S+superblock\.erofs: its superblock is damaged: wrong checksum$/;
  await fails(t, "superblock", { config: superblock }, { ...corrupt, phase: "prepare the pod", what });

  const bundle = readFileSync(join(repository, "dist/guest/agent.cjs"));
  const file = damagedImage("file", (image) => flip(image, image.indexOf(bundle.subarray(4096, 8192)), 4096));
  const found = /^\S+file\.erofs is damaged: its checksum is not the one in file\.erofs\.sha256; the agent in the guest exited with 1$/;
  await fails(t, "file", { config: file }, { ...corrupt, phase: BOOT, what: found, machine: restarted() });
  rmSync(join(scratch.folder, "file.erofs"));

  // No checksum: the guest's own words. The root folder's inode (fs/erofs/erofs_fs.h) is found by the superblock.
  // Its block is the superblock's, whose own checksum is switched off (a bit of feature_compat).
  const spoil = (image: Buffer): void => {
    image.writeUInt8((image[1024 + 8] ?? 0) & 0xfe, 1024 + 8);
    flip(image, image.readUInt32LE(1024 + 40) * 4096 + image.readUInt16LE(1024 + 14) * 32, 32);
  };
  const inode = damagedImage("inode", spoil, false);
  const mount = /^the guest cannot read its image: the guest kernel panicked: VFS: Unable to mount root fs/;
  await fails(t, "inode", { config: inode }, { ...corrupt, phase: BOOT, what: mount, machine: restarted(), console: /Unable to mount root fs/ });
  rmSync(join(scratch.folder, "inode.erofs"));
});

/** Without --log: the first line as runc writes it, what explains it below. */
function toldToPeople({ stderr }: Outcome): string {
  const [, first = "", rest = ""] = /^time="[^"]+" level=error msg="(.*?)"\n(.*)\n$/s.exec(stderr) ?? [];
  return `${first.replaceAll('\\"', '"')}\n${rest}`;
}

test.serial("KVM is refused: the driver is asked for, and its device is none", async (t) => {
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle();
  const config = scratch.config("kvm", "", "kvm");
  // In a mount namespace of its own: no command beside this one is to see it. Where there is no device that is why.
  const script = 'mount --bind /dev/null /dev/kvm 2>/dev/null; exec "$0" "$@"';
  const what = /^hypervisor\.driver is "kvm", which can't work here: .*\/dev\/kvm/;
  const refused = async (flags: readonly string[]): Promise<Outcome> => {
    const command = [binary, ...flags, "--root", scratch.root, "run", "--bundle", bundle, "refused"];
    const env = { ...process.env, TSKATA_CONFIG: config };
    return await outcomeOf(spawn("unshare", ["--mount", "sh", "-c", script, ...command], { env, stdio: ["pipe", "pipe", "pipe"] }), {});
  };
  const { flags, told } = logging("refused");
  for (const msg of [told(t, await refused(flags)), toldToPeople(await refused([]))]) {
    checkMessage(t, msg, { failure: "kvm-refused", phase: "prepare the pod", what });
    t.false(msg.includes("last lines of"), msg);
  }
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("the hypervisor fails", async (t) => {
  // busybox is what it is called, and cat has no option -nodefaults.
  const program = join(scratch.folder, "cat");
  copyFileSync("/bin/busybox", program);
  chmodSync(program, 0o755);
  const config = join(scratch.folder, "fails.toml");
  writeFileSync(config, `[hypervisor]\ndriver = "qemu"\nqemu = ${JSON.stringify(program)}\naccelerator = "tcg"\n`);
  const what = /^the virtual machine has ended: qemu exited with 1: .*Same as -vte$/;
  await fails(
    t,
    "fails",
    { config },
    { failure: "hypervisor-failed", phase: BOOT, what, machine: /: qemu exited with 1; driver qemu/, hypervisor: /Print FILEs to stdout/ },
  );
});

test.serial("the hypervisor lets go of a device and runs on", async (t) => {
  const program = join(scratch.folder, "lets-go");
  buildFixture("lets-go", program);
  const config = join(scratch.folder, "lets-go.toml");
  writeFileSync(config, `[hypervisor]\ndriver = "qemu"\nqemu = ${JSON.stringify(program)}\naccelerator = "tcg"\n`);
  const what = /^the virtual machine has ended: qemu has let go of the vsock device$/;
  await fails(t, "lets-go", { config }, { failure: "hypervisor-failed", phase: BOOT, what, machine: /: qemu has let go of the vsock device; driver qemu/ });
});

function sandboxPid(id: string): number | undefined {
  try {
    return scratch.pod(id).sandboxPid;
  } catch {
    return undefined; // not there yet
  }
}

test.serial("the sandbox process is killed while the machine starts", async (t) => {
  const config = scripted("killed", "exec sleep 1000");
  const meanwhile = async (id: string): Promise<void> => {
    let pid = sandboxPid(id);
    for (const end = Date.now() + 20_000; pid === undefined && Date.now() < end; pid = sandboxPid(id)) await after(20);
    process.kill(pid ?? t.fail("no sandbox process") ?? 0, "SIGKILL");
  };
  const what = /^the sandbox process was killed by SIGKILL before the virtual machine was ready/;
  await fails(t, "killed", { config, meanwhile }, { failure: "sandbox-died", phase: "wait for the virtual machine", what });
});

/** Sends a signal to a process of the pod, between the machine's start and the request that makes the container. */
function signalling(name: string, signal: string, which: "sandbox" | "hypervisor", config: string): Start {
  const hook = join(scratch.folder, `${name}.sh`);
  const child = which === "hypervisor" ? "for child in $(cat /proc/$pid/task/$pid/children); do grep -q ^qemu /proc/$child/comm && pid=$child; done" : "";
  writeFileSync(hook, `#!/bin/sh\npid=$(sed -n 's/.*"sandboxPid": \\([0-9]*\\).*/\\1/p' "$1")\n${child}\nkill -${signal} $pid\n`);
  chmodSync(hook, 0o755);
  return {
    config,
    edit: (spec) => {
      spec.hooks = { createRuntime: [{ path: hook, args: [hook, join(scratch.root, name, "state.json")] }] };
    },
  };
}

test.serial("time-out: guest or sandbox process are stopped when the container is made", async (t) => {
  const config = scratch.config("short", "[sandbox]\ncall_timeout_s = 3\n");
  const machine = new RegExp(`: still runs when the time is over; driver ${driver()}.*, 1 vCPU, \\d+ MiB$`);
  const late = { failure: "time-out", phase: "create in the guest", machine, console: /./ } as const;
  await fails(t, "stopped", signalling("stopped", "STOP", "sandbox", config), { ...late, what: /^the sandbox process did not answer Create in 8 s$/ });
  // The kvm driver's machine is in the sandbox process.
  if (driver() === "kvm") return;
  await fails(t, "frozen", signalling("frozen", "STOP", "hypervisor", config), {
    ...late,
    what: /^the (guest did not take a stdio stream|agent in the guest did not answer Create) in 3 s$/,
  });
});

test.serial("the hypervisor dies when the container is made: told at once, and as that", async (t) => {
  t.timeout(hangLimitMs);
  if (driver() === "kvm") return t.pass("the kvm driver's machine is in the sandbox process");
  for (const round of [1, 2, 3]) {
    const id = `dead-${round}`;
    const { config, edit } = signalling(id, "KILL", "hypervisor", scratch.config("patient", ""));
    const begun = Date.now();
    const outcome = await scratch.tskata(["run", "--bundle", await scratch.bundle(edit), id], { env: { TSKATA_CONFIG: config } });
    t.is(outcome.code, 1, describe(outcome));
    t.regex(outcome.stderr, /runtime run failed: the virtual machine died: .*qemu was killed by SIGKILL"?\n {2}likely cause: /, describe(outcome));
    t.true(Date.now() - begun < 60_000, "nothing waited for the dead guest: sandbox.call_timeout_s is 120");
    t.deepEqual(scratch.leftovers(), []);
  }
});

function allowDescriptors(t: ExecutionContext, pid: number, descriptors: number): void {
  t.is(spawnSync("prlimit", ["--pid", `${pid}`, `--nofile=${descriptors}:`]).status, 0);
}

test.serial("a running pod has too few descriptors for another process: that is told, and what ran of it is killed", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.running("few");
  const { sandboxPid } = scratch.pod("few");
  const [, before = ""] = /^Max open files +(\d+) /m.exec(readFileSync(`/proc/${sandboxPid}/limits`, "utf8")) ?? [];
  const loop = 'read word; test -n "$word" && echo begun; while [ ! -e /go ]; do sleep 0.2; done';
  const reasons: string[] = [];
  let running: Promise<Outcome> | undefined;
  // From where its descriptors arrive to where all of them have what they need.
  for (let free = 9; running === undefined; free++) {
    allowDescriptors(t, sandboxPid, readdirSync(`/proc/${sandboxPid}/fd`).length + free);
    const child = scratch.spawn(["exec", "few", "/bin/sh", "-c", loop]);
    const ended = outcomeOf(child, { input: "word\n" });
    await Promise.race([once(child.stdout ?? child, "data"), ended]);
    // Its streams connect all at once: input and output may be there, and the errors have none left.
    const failed = await Promise.race([ended, after(3000)]);
    if (failed === undefined) running = ended;
    else reasons.push(`${free}: ${failed.code} ${failed.stderr}`);
  }
  allowDescriptors(t, sandboxPid, Number(before));
  t.log(reasons.map((reason) => reason.replace(/time=\S+ /, "").trimEnd()).join("\n"));
  t.true(reasons.length > 0 && reasons.every((reason) => /^\d+: 255 .*(EMFILE|too many open files)/.test(reason)), reasons.join("\n"));
  t.true(
    reasons.some((reason) => reason.includes("eventfd")),
    "no process that ran already",
  );
  t.is(await scratch.sh("few", "ps -o args | grep -c '^/bin/sh -c read word'"), "1");
  await scratch.sh("few", "touch /go");
  t.is((await running).code, 0);
  await scratch.ok(["delete", "--force", "few"]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("descriptors run out for a while below a running container: it is told, and what is mounted in it stays", async (t) => {
  t.timeout(hangLimitMs * 2);
  const volume = join(scratch.folder, "volume");
  mkdirSync(volume);
  writeFileSync(join(volume, "word"), "there\n");
  // Of what the shell has itself: no program could be started.
  const look = "mkfifo /fifo; exec 9<>/fifo; while :; do read -t 1 -u 9 pause; read word </volume/word && echo $word; done 2>&1";
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", look];
    spec.root.readonly = false;
    spec.mounts.push({ destination: "/volume", type: "bind", source: volume, options: ["rbind"] });
  });
  await scratch.create("starved", bundle);
  await scratch.ok(["start", "starved"]);
  const mounts = await scratch.sh("starved", "cat /proc/mounts");
  const { sandboxPid } = scratch.pod("starved");
  const open = new Set(readdirSync(`/proc/${sandboxPid}/fd`).map(Number));
  let free = 0;
  while (open.has(free)) free++;
  allowDescriptors(t, sandboxPid, free);
  const told = (): number => scratch.output("starved").split("Too many open files").length - 1;
  while (told() < 8) await after(200);
  allowDescriptors(t, sandboxPid, 1000);
  const words = (): number => scratch.output("starved").split("there").length;
  const before = words();
  while (words() === before && !/no such file/i.test(scratch.output("starved"))) await after(200);
  t.notRegex(scratch.output("starved"), /no such file/i);
  t.is(await scratch.sh("starved", "cat /proc/mounts"), mounts);
  await scratch.ok(["delete", "--force", "starved"]);
  t.deepEqual(scratch.leftovers(), []);
});

/** Closer together where the machine has all, and the agent's first connection too few. */
const FEW = [40, 48, 56, 64, 72, 73, 74, 75, 76, 80, 88, 96, 112, 160, 200];

test.serial("too few descriptors for a start: wherever they end, it is told, and with enough of them the container runs", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["true"];
  });
  const { flags, told } = logging("files");
  const phases = new Set<string>();
  let done = false;
  for (const limit of FEW) {
    const words = [`--nofile=${limit}:${limit}`, binary, "--root", scratch.root, ...flags, "run", "--bundle", bundle, "files"];
    const outcome = await outcomeOf(spawn("prlimit", words, { env: scratch.environment() }), {});
    t.log(`${limit}: exit ${outcome.code} ${outcome.stderr.split("\n")[0] ?? ""}`);
    done = outcome.code === 0;
    if (done) break;
    const msg = told(t, outcome);
    // Another program of this user has more descriptors on their way than the limit (unix(7), ETOOMANYREFS): QEMU cannot send any.
    if (/qemu has let go of|Failed to initialize virtqueue/.test(msg)) continue;
    const what = /EMFILE|too many open files|no more may be open/i;
    const phase = /in phase "(.*?)"/.exec(msg)?.[1];
    if (phase === undefined)
      t.regex(msg.split("\n")[0] ?? "", what); // of a pod that runs: an answer to what was asked
    else {
      phases.add(phase);
      checkMessage(t, msg, { failure: "too-many-open-files", phase, what });
    }
    t.deepEqual(scratch.leftovers(), []);
  }
  t.true(done);
  t.true(phases.size > 0);
});

/** Free pages: closer together where the start still fails soon. */
const ROOM = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 40];

test.serial("disk full: wherever it happens, it is told, and with enough room the container runs", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["true"];
  });
  const root = join(scratch.folder, "full");
  mkdirSync(root);
  const phases = new Set<string>();
  const mount = (...args: string[]): void => void t.is(spawnSync("mount", [...args, root]).status, 0);
  try {
    mount("-t", "tmpfs", "-o", "size=1m,nr_inodes=64", TEST_DISK);
    const filler = join(root, "filler.d");
    mkdirSync(filler);
    const { flags, told } = logging("full");
    const attempt = async (free: number): Promise<Outcome> => {
      // All of it, but so many pages.
      spawnSync("dd", ["if=/dev/zero", `of=${join(filler, "filler")}`, "bs=4096", `count=${256 - free}`]);
      return await scratch.tskata([...flags, "--root", root, "run", "--bundle", bundle, "full"]);
    };
    let done = false;
    for (const free of ROOM) {
      const begun = Date.now();
      const outcome = await attempt(free);
      t.log(`${free} pages: exit ${outcome.code} after ${Date.now() - begun} ms ${/in phase .*?" /.exec(outcome.stderr)?.[0] ?? ""}`);
      done = outcome.code === 0;
      if (done) break;
      const msg = told(t, outcome);
      const phase = /in phase "(.*?)"/.exec(msg)?.[1] ?? "";
      phases.add(phase);
      checkMessage(t, msg, { failure: "disk-full", phase, what: /no space left/i });
      t.false(msg.includes("last lines of"), msg);
      t.deepEqual(readdirSync(root), ["filler.d"], "what was made is gone");
      t.deepEqual(scratch.leftovers(), []);
    }
    t.true(done, "it runs when there is room");
    t.true(phases.has("take the id") && phases.size > 1, [...phases].join(", "));

    // A pod that runs goes on, and can be deleted.
    rmSync(join(filler, "filler"));
    const sleeping = await scratch.bundle((spec) => {
      spec.process.args = ["sleep", "100000"];
    });
    // Its stdio are no pipes of ours, which it would hold.
    const detach = 'exec "$0" "$@" </dev/null >/dev/null 2>&1';
    const detached = ["--root", root, "run", "--detach", "--bundle", sleeping, "runs"];
    t.is(spawnSync("sh", ["-c", detach, binary, ...detached]).status, 0);
    spawnSync("dd", ["if=/dev/zero", `of=${join(filler, "filler")}`, "bs=4096"]);
    spawnSync("sh", ["-c", "seq 100 | xargs touch"], { cwd: filler }); // and all inodes
    t.throws(() => writeFileSync(join(root, "more"), ""), { code: "ENOSPC" });
    const exec = await scratch.tskata(["--root", root, "exec", "runs", "echo", "alive"]);
    t.is(exec.stdout, "alive\n", describe(exec));
    await scratch.ok(["--root", root, "delete", "--force", "runs"]);
    t.deepEqual(readdirSync(root), ["filler.d"]);
  } finally {
    spawnSync("umount", ["-l", root]);
  }
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("that is all of them", (t) => {
  t.deepEqual([...provoked].sort(), Object.keys(FAILURES).sort());
});
