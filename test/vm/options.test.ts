/** What of config.json is rarely set: each in a container of its own, all in one pod's machine. */
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { hierarchies } from "../../src/host/cgroup.ts";
import { onTerminal } from "../helpers/console.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { amount, describe, hangLimitMs, repository, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("options");
test.after.always("clean up", async () => await scratch.cleanUp());

test.serial.before("the pod", async (t) => {
  t.timeout(hangLimitMs);
  await startPod(scratch, "pod");
});

/** Runs a container of the pod to its end; `prepare` gets its bundle. */
async function run(t: ExecutionContext, id: string, edit: (spec: Spec) => void, prepare: (bundle: string) => void = () => {}) {
  t.timeout(hangLimitMs * 2);
  const joined = await joinPod(scratch, "pod");
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    edit(spec);
  });
  prepare(bundle);
  return await scratch.tskata(["run", "--bundle", bundle, id]);
}

/** As `run`, with a shell line for a program; its trimmed output. */
async function sh(t: ExecutionContext, id: string, line: string, edit: (spec: Spec) => void = () => {}, prepare?: (bundle: string) => void): Promise<string> {
  const change = (spec: Spec): void => {
    spec.process.args = ["sh", "-c", line];
    edit(spec);
  };
  const outcome = await run(t, id, change, prepare);
  if (outcome.code !== 0) throw new Error(`${line}: ${describe(outcome)}\n${scratch.logs()}`);
  return outcome.stdout.trim();
}

function privileged(spec: Spec): void {
  const all = ["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_IPC_LOCK", "CAP_DAC_OVERRIDE", "CAP_SYS_NICE"];
  spec.process.capabilities = { bounding: all, effective: all, permitted: all };
  spec.linux.readonlyPaths = [];
}

// -- resources -------------------------------------------------------------------------------------------------------------

test.serial("the hugetlb limit bites", async (t) => {
  const line =
    "echo 8 >/proc/sys/vm/nr_hugepages; cat /sys/fs/cgroup/hugetlb.2MB.max; fallocate -l 4M /huge/a && echo four; fallocate -l 4M /huge/b || echo full";
  const out = await sh(t, "huge", line, (spec) => {
    privileged(spec);
    spec.mounts.push({ destination: "/huge", type: "hugetlbfs", source: "hugetlbfs", options: ["pagesize=2M"] });
    spec.linux.resources = { hugepageLimits: [{ pageSize: "2MB", limit: 6 * 1024 * 1024 }] };
  });
  t.is(out, `${6 * 1024 * 1024}\nfour\nfull`);
});

test.serial("a page size that the guest has not is refused by its name", async (t) => {
  const outcome = await run(t, "no-such-page", (spec) => {
    spec.linux.resources = { hugepageLimits: [{ pageSize: "3MB", limit: 0 }] };
  });
  t.not(outcome.code, 0);
  t.regex(outcome.stderr, /hugetlb\.3MB\.max.*no such file/);
});

/** The guest's only disk is its own read-only image, so what can be shown is that the kernel has taken the values. */
async function guestDisk(t: ExecutionContext): Promise<{ disk: string; device: { major: number; minor: number } }> {
  const disk = await scratch.sh("pod", 'awk \'$4 == "vda" || $4 == "pmem0" { print $1 ":" $2 }\' /proc/partitions');
  t.regex(disk, /^\d+:0$/);
  const [major = 0, minor = 0] = disk.split(":").map(Number);
  return { disk, device: { major, minor } };
}

test.serial("io weight and throttles reach the cgroup; a device that is not there is refused by name", async (t) => {
  const { disk, device } = await guestDisk(t);
  const edit = (spec: Spec): void => {
    spec.linux.resources = {
      blockIO: {
        weight: 500,
        throttleReadBpsDevice: [{ ...device, rate: 1_048_576 }],
        throttleWriteBpsDevice: [{ ...device, rate: 524_288 }],
        throttleReadIOPSDevice: [{ ...device, rate: 99 }],
        throttleWriteIOPSDevice: [{ ...device, rate: 77 }],
      },
    };
  };
  const out = await sh(t, "io", "cat /sys/fs/cgroup/io.weight /sys/fs/cgroup/io.max", edit);
  t.is(out, `default 4950\n${disk} rbps=1048576 wbps=524288 riops=99 wiops=77`);
  const outcome = await run(t, "io-none", (spec) => {
    spec.linux.resources = { blockIO: { throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1000 }] } };
  });
  t.not(outcome.code, 0);
  t.regex(outcome.stderr, /set cgroup io\.max to .*8:0 rbps=1000.*: ENODEV/);
});

/** What "update" of these changes a container's files to. */
async function updated(id: string, resources: object, files: string): Promise<string[]> {
  await scratch.ok(["update", "--resources", "-", id], { input: JSON.stringify(resources) });
  return (await scratch.sh(id, `cd /sys/fs/cgroup && cat ${files}`)).split("\n");
}

test.serial("update of every resource of a running container", async (t) => {
  t.timeout(hangLimitMs * 2);
  const joined = await joinPod(scratch, "pod");
  const fuse = { type: "c", major: 10, minor: 229, access: "rwm" };
  await scratch.running("updated", (spec) => {
    joined(spec);
    spec.linux.devices = [{ path: "/dev/fuse", ...fuse, fileMode: 0o666 }];
    spec.linux.resources = {
      devices: [
        { allow: false, access: "rwm" },
        { allow: true, ...fuse },
      ],
      memory: { limit: 1 << 28 },
    };
  });
  const mebibytes = (count: number): number => count * 1024 * 1024;
  const memory = { memory: { limit: mebibytes(100), reservation: mebibytes(20), swap: mebibytes(150) }, unified: { "memory.high": String(mebibytes(90)) } };
  t.deepEqual(await updated("updated", memory, "memory.max memory.low memory.swap.max memory.high"), [100, 20, 50, 90].map(mebibytes).map(String));
  const cpu = { cpu: { shares: 2048, quota: 30_000, period: 60_000, burst: 1000, cpus: "0", mems: "0" } };
  t.deepEqual(await updated("updated", cpu, "cpu.weight cpu.max cpu.max.burst cpuset.cpus cpuset.mems"), ["79", "30000 60000", "1000", "0", "0"]);
  t.deepEqual(await updated("updated", { cpu: { idle: 1 } }, "cpu.idle"), ["1"]);
  const others = { pids: { limit: 55 }, hugepageLimits: [{ pageSize: "2MB", limit: mebibytes(4) }] };
  t.deepEqual(await updated("updated", others, "pids.max hugetlb.2MB.max"), ["55", String(mebibytes(4))]);
  const { disk, device } = await guestDisk(t);
  const io = {
    weight: 300,
    throttleReadBpsDevice: [{ ...device, rate: 1001 }],
    throttleWriteBpsDevice: [{ ...device, rate: 1002 }],
    throttleReadIOPSDevice: [{ ...device, rate: 1003 }],
    throttleWriteIOPSDevice: [{ ...device, rate: 1004 }],
  };
  const limits = `${disk} rbps=1001 wbps=1002 riops=1003 wiops=1004`;
  t.deepEqual(await updated("updated", { blockIO: io }, "io.weight io.max"), ["default 2930", limits]);

  t.is(await scratch.sh("updated", ": </dev/fuse && echo open"), "open");
  await updated("updated", { devices: [{ allow: false, access: "rwm" }] }, "pids.max");
  t.regex((await scratch.exec("updated", ["sh", "-c", ": </dev/fuse"])).stderr, /Operation not permitted/);
  t.is(await scratch.sh("updated", "cat /sys/fs/cgroup/pids.max"), "55", "what an update does not name stays");

  const flags = [
    "--memory",
    String(mebibytes(80)),
    "--memory-swap",
    "-1",
    "--pids-limit",
    "44",
    "--cpu-idle",
    "0",
    "--cpu-share",
    "1024",
    "--blkio-weight",
    "10",
  ];
  await scratch.ok(["update", ...flags, "updated"]);
  const files = "memory.max memory.swap.max pids.max cpu.idle cpu.weight io.weight";
  t.deepEqual(await updated("updated", {}, files), [String(mebibytes(80)), "max", "44", "0", "39", "default 1"]);
  const refused = await scratch.tskata(["update", "--resources", "-", "updated"], { input: '{"memory": {"swappiness": 10}}' });
  t.not(refused.code, 0);
  t.regex(refused.stderr, /memory\.swappiness is not supported/);
  const checked = await scratch.tskata(["update", "--resources", "-", "updated"], { input: '{"memory": {"limit": 8192, "checkBeforeUpdate": true}}' });
  t.not(checked.code, 0);
  t.regex(checked.stderr, /rejecting memory limit 8192 as usage is \d+/);
  await scratch.ok(["delete", "--force", "updated"]);
});

// -- mounts ----------------------------------------------------------------------------------------------------------------

/** Optional fields of the root mount's line in mountinfo (proc(5)). */
async function propagationOf(t: ExecutionContext, value: string): Promise<string> {
  const line = 'awk \'$5 == "/" { fields = ""; for (i = 7; $i != "-"; i++) fields = fields $i " "; print fields }\' /proc/self/mountinfo';
  return await sh(t, `propagation-${value}`, line, (spec) => {
    spec.linux.rootfsPropagation = value;
  });
}

test.serial("rootfsPropagation: shared and rshared", async (t) => {
  t.regex(await propagationOf(t, "shared"), /^shared:\d+$/);
  t.regex(await propagationOf(t, "rshared"), /^shared:\d+$/);
});

test.serial("rootfsPropagation: private, and unbindable, which cannot be bound", async (t) => {
  t.is(await propagationOf(t, "private"), "");
  t.is(await propagationOf(t, "unbindable"), "unbindable");
});

test.serial("rootfsPropagation: slave keeps the container's mounts from others", async (t) => {
  t.notRegex(await propagationOf(t, "slave"), /shared/);
  t.notRegex(await propagationOf(t, "rslave"), /shared/);
});

test.serial("tmpcopyup: the tmpfs begins with what it covers, owners and modes too, and the image stays as it was", async (t) => {
  const prepare = (bundle: string): void => {
    mkdirSync(join(bundle, "rootfs/state/deep"), { recursive: true });
    writeFileSync(join(bundle, "rootfs/state/deep/file"), "kept", { mode: 0o640 });
  };
  const line = "cat /state/deep/file; stat -c ' %a' /state/deep/file; stat -f -c %T /state; echo new >/state/deep/file; cat /state/deep/file";
  const edit = (spec: Spec): void => {
    spec.root.readonly = true;
    spec.mounts.push({ destination: "/state", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "nosuid"] });
  };
  t.is(await sh(t, "copy-up", line, edit, prepare), "kept 640\ntmpfs\nnew");
});

test.serial("mount options reach the mount, in the order given; a bind that is to be read is", async (t) => {
  const prepare = (bundle: string): void => void mkdirSync(join(bundle, "given/deep"), { recursive: true });
  const edit = (spec: Spec): void => {
    spec.mounts.push(
      { destination: "/a", type: "tmpfs", source: "one", options: ["size=1m", "mode=711"] },
      { destination: "/a", type: "tmpfs", source: "two", options: ["nosuid", "nodev", "noexec", "noatime", "mode=700"] },
      { destination: "/given", source: "given", options: ["rbind", "rro"] },
    );
  };
  const line = `awk '$5 == "/a" { print $6, $(NF - 1) }' /proc/self/mountinfo; stat -c %a /a; touch /given/deep/file 2>&1`;
  const out = await sh(t, "mounts", `${line} || true`, edit, prepare);
  t.deepEqual(out.split("\n").slice(0, 3), ["rw,relatime one", "rw,nosuid,nodev,noexec,noatime two", "700"]);
  t.regex(out, /Read-only file system/);
});

// -- devices ---------------------------------------------------------------------------------------------------------------

test.serial("devices: nodes of their kind, mode and owner; the default ones and the links; the filter refuses the rest", async (t) => {
  const edit = (spec: Spec): void => {
    spec.linux.devices = [
      { path: "/dev/deep/pipe", type: "p", fileMode: 0o640, uid: 5, gid: 6 },
      { path: "/dev/zeroes", type: "c", major: 1, minor: 5, fileMode: 0o604, uid: 7, gid: 8 },
      { path: "/dev/fuse", type: "u", major: 10, minor: 229, fileMode: 0o666 },
    ];
    spec.linux.resources = { devices: [{ allow: false, access: "rwm" }] };
  };
  const line = [
    "stat -c '%F %a %u %g' /dev/deep/pipe /dev/zeroes",
    "head -c 3 /dev/zeroes | wc -c",
    "for name in fd stdin ptmx; do readlink /dev/$name; done",
    "for name in null zero full random urandom tty; do test -c /dev/$name || echo no $name; done",
    "cat /dev/fuse 2>&1 || true",
  ].join("; ");
  t.deepEqual((await sh(t, "devices", line, edit)).split("\n"), [
    "fifo 640 5 6",
    "character special file 604 7 8",
    "3",
    "/proc/self/fd",
    "/proc/self/fd/0",
    "pts/ptmx",
    "cat: can't open '/dev/fuse': Operation not permitted",
  ]);
});

test.serial("sysctls and names of the container's own namespaces", async (t) => {
  const edit = (spec: Spec): void => {
    spec.hostname = "own-host";
    spec.domainname = "own.domain";
    spec.linux.sysctl = { "kernel.msgmax": "9999", "fs/mqueue/msg_max": "7" };
  };
  const line = "cd /proc/sys; cat kernel/hostname kernel/domainname kernel/msgmax fs/mqueue/msg_max";
  t.is(await sh(t, "names", line, edit), "own-host\nown.domain\n9999\n7");
  t.notRegex(await scratch.sh("pod", line), /own|9999/);
});

// -- the process -----------------------------------------------------------------------------------------------------------

test.serial("a time namespace with offsets", async (t) => {
  const uptime = async (): Promise<number> => Number((await scratch.sh("pod", "cat /proc/uptime")).split(" ")[0]);
  const before = await uptime();
  const out = await sh(t, "time", "cat /proc/self/timens_offsets; cat /proc/uptime", (spec) => {
    spec.linux.namespaces.push({ type: "time" });
    spec.linux.timeOffsets = { monotonic: { secs: 1000, nanosecs: 5 }, boottime: { secs: 86_400 } };
  });
  t.regex(out, /^monotonic +1000 +5\nboottime +86400 +0\n/);
  const inside = Number(out.split("\n")[2]?.split(" ")[0]) - 86_400;
  t.true(inside >= before && inside <= (await uptime()), out);
});

test.serial("personality: a 32-bit machine's name, for execs too", async (t) => {
  t.timeout(hangLimitMs * 2);
  const joined = await joinPod(scratch, "pod");
  await scratch.running("linux32", (spec) => {
    joined(spec);
    spec.linux.personality = { domain: "LINUX32" };
  });
  t.is(await scratch.sh("linux32", "uname -m; cat /proc/1/personality"), "i686\n00000008");
  t.is(await scratch.sh("pod", "uname -m"), "x86_64");
  await scratch.ok(["delete", "--force", "linux32"]);
});

const PRIVILEGES = "grep -E '^(NoNewPrivs|Cap...):' /proc/self/status | tr -d '\\t'";

test.serial("the process: user, groups, umask, working folder, environment, capabilities, no_new_privs", async (t) => {
  const line = `id -u; id -g; id -G; umask; pwd; echo $MARK; cat /proc/self/oom_score_adj; ulimit -c; ${PRIVILEGES}`;
  const out = await sh(t, "process", line, (spec) => {
    const kept = ["CAP_KILL", "CAP_NET_BIND_SERVICE"];
    Object.assign(spec.process, {
      user: { uid: 1000, gid: 1001, additionalGids: [2000, 2001], umask: 0o027 },
      cwd: "/made/for/it",
      noNewPrivileges: true,
      oomScoreAdj: 123,
      rlimits: [{ type: "RLIMIT_CORE", soft: 1024, hard: 1024 }],
      capabilities: { bounding: [...kept, "CAP_CHOWN"], permitted: kept, inheritable: kept, effective: kept, ambient: ["CAP_NET_BIND_SERVICE"] },
    });
    spec.process.env.push("MARK=two words");
  });
  t.deepEqual(out.split("\n"), [
    ...["1000", "1001", "1001 2000 2001", "0027", "/made/for/it", "two words", "123", "2"],
    ...["CapInh:0000000000000420", "CapPrm:0000000000000400", "CapEff:0000000000000400", "CapBnd:0000000000000421", "CapAmb:0000000000000400"],
    "NoNewPrivs:1",
  ]);
});

/** Fields 19 (nice), 40 (real-time priority), 41 (policy) of proc(5)'s stat. */
const SCHEDULING = "set -- $(cat /proc/self/stat); shift 18; echo nice $1; shift 21; echo priority $1 policy $2";

test.serial("scheduler: batch with a nice value, round robin with a priority", async (t) => {
  const batch = await sh(t, "batch", SCHEDULING, (spec) => {
    spec.process.scheduler = { policy: "SCHED_BATCH", nice: 7 };
  });
  t.is(batch, "nice 7\npriority 0 policy 3");
  const roundRobin = await sh(t, "rr", SCHEDULING, (spec) => {
    privileged(spec);
    spec.process.scheduler = { policy: "SCHED_RR", priority: 10 };
  });
  t.regex(roundRobin, /priority 10 policy 2/);
});

test.serial("scheduler: a deadline with its runtime and period, which children do not inherit, by its flag; what cannot be is refused", async (t) => {
  const deadline = { policy: "SCHED_DEADLINE", flags: ["SCHED_FLAG_RESET_ON_FORK"], runtime: 10_000_000, deadline: 30_000_000, period: 40_000_000 };
  const as = async (id: string, scheduler: Spec["process"]["scheduler"]) =>
    await run(
      t,
      id,
      (spec) => Object.assign(spec.process, { args: ["scheduling"], scheduler }),
      (bundle) => buildFixture("scheduling", join(bundle, "rootfs/bin/scheduling")),
    );
  const taken = await as("deadline", deadline);
  t.regex(taken.stdout, /^policy 6 flags 1 runtime 10000000 deadline 30000000 period 40000000\npolicy 0 flags 0 /, describe(taken));
  const refused = await as("deadline-none", { ...deadline, period: 20_000_000 });
  t.not(refused.code, 0);
  t.regex(refused.stderr, /set process\.scheduler: EINVAL/);
});

test.serial("a terminal of the config, of the config's size; none without", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "pod");
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    spec.process.args = ["sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && stty size"];
    spec.process.terminal = true;
    spec.process.consoleSize = { height: 33, width: 99 };
  });
  t.is(await onTerminal(t, scratch, "terminal", bundle), "/dev/pts/0\n33 99\n");
  t.is(await sh(t, "no-terminal", "tty || true"), "not a tty");
});

test.serial("a user by name where there is no number: it and its groups", async (t) => {
  const prepare = (bundle: string): void => {
    mkdirSync(join(bundle, "rootfs/etc"), { recursive: true });
    writeFileSync(join(bundle, "rootfs/etc/passwd"), "bob:x:1000:100::/home/bob:/bin/sh\n");
    writeFileSync(join(bundle, "rootfs/etc/group"), "wheel:x:10:bob\n");
  };
  const of = async (id: string, user: Spec["process"]["user"]): Promise<string> =>
    await sh(
      t,
      id,
      "id -u; id -G; echo $HOME",
      (spec) => {
        spec.process.user = user;
      },
      prepare,
    );
  t.is(await of("by-name", { username: "bob" }), "1000\n100 10\n/home/bob");
  t.is(await of("by-number", { uid: 7, gid: 8, username: "nobody-has-it" }), "7\n8\n/");
});

const dockerProfile = JSON.parse(readFileSync(join(repository, "test/fixtures/docker-seccomp.json"), "utf8")) as { seccomp: object };

test.serial("seccomp: the number of what the profile does not name, and the filter's flags", async (t) => {
  const out = await sh(t, "seccomp", "unshare -U true 2>&1; grep Seccomp /proc/self/status | tr -d '\\t'", (spec) => {
    const flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"];
    spec.linux.seccomp = { ...dockerProfile.seccomp, defaultErrnoRet: 38, flags };
  });
  t.regex(out, /Function not implemented\nSeccomp:2\nSeccomp_filters:1$/);
});

test.serial("cgroupsPath: where the container's process of the host is", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "pod");
  const path = `/${basename(scratch.folder)}/deep`;
  await scratch.running("placed", (spec) => {
    joined(spec);
    spec.linux.cgroupsPath = path;
  });
  const { pid } = await scratch.state("placed");
  const places = readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n");
  const mounted = hierarchies().length;
  t.true(mounted > 0);
  t.is(places.filter((line) => line.endsWith(`:${path}`)).length, mounted, places.join("\n"));
  await scratch.ok(["delete", "--force", "placed"]);
});

test.serial("ioPriority", async (t) => {
  const out = await sh(t, "io-priority", "ionice -p $$", (spec) => {
    spec.process.ioPriority = { class: "IOPRIO_CLASS_BE", priority: 6 };
  });
  t.is(out, "best-effort: prio 6");
});

// -- exec, signals, processes ----------------------------------------------------------------------------------------------

/** Logs what arrives; a shell also reaps whatever becomes its child. */
const LISTENER = `for signal in 37 USR1 USR2 TERM; do trap "echo got $signal >>/log" $signal; done
(trap "echo child USR2 >>/log" USR2; while :; do sleep 0.2; done) &
echo ready >/log; while :; do sleep 0.2; done`;

test.serial.before("a container that listens", async (t) => {
  t.timeout(hangLimitMs * 2);
  const joined = await joinPod(scratch, "pod");
  await scratch.running("listener", (spec) => {
    joined(spec);
    spec.process.args = ["sh", "-c", LISTENER];
    spec.linux.resources = { memory: { limit: 1 << 26 }, pids: { limit: 100 } };
  });
  await arrives(t, "cat /log", /^ready$/);
});

/** Waits for what a shell line in it prints. */
async function arrives(t: ExecutionContext, line: string, pattern: RegExp): Promise<void> {
  let out = "";
  for (const end = Date.now() + 60_000; !pattern.test(out) && Date.now() < end; ) out = (await scratch.exec("listener", ["sh", "-c", line])).stdout.trim();
  t.regex(out, pattern, line);
}

test.serial("signals reach the init: by kill, real-time ones, and sent to the pid of the host", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.ok(["kill", "listener", "USR1"]);
  await arrives(t, "cat /log", /got USR1$/);
  await scratch.ok(["kill", "listener", "RTMIN+3"]);
  await arrives(t, "cat /log", /got 37$/);
  const { pid } = await scratch.state("listener");
  process.kill(pid, 37);
  await arrives(t, "cat /log", /got 37\ngot 37$/);
  process.kill(pid, "SIGTERM");
  await arrives(t, "cat /log", /got TERM$/);
});

test.serial("stop and continue: by kill, and continue by the pid of the host", async (t) => {
  t.timeout(hangLimitMs * 2);
  const state = "grep State /proc/1/status | tr -d '\\t'";
  await scratch.ok(["kill", "listener", "STOP"]);
  await arrives(t, state, /^State:T/);
  await scratch.ok(["kill", "listener", "CONT"]);
  await arrives(t, state, /^State:[SR]/);
  await scratch.ok(["kill", "listener", "STOP"]);
  await arrives(t, state, /^State:T/);
  process.kill((await scratch.state("listener")).pid, "SIGCONT");
  await arrives(t, state, /^State:[SR]/);
});

test.serial("kill --all reaches every process", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.ok(["kill", "listener", "USR2"]);
  await arrives(t, "cat /log", /got USR2$/);
  t.notRegex(await scratch.sh("listener", "cat /log"), /child/);
  await scratch.ok(["kill", "--all", "listener", "USR2"]);
  await arrives(t, "sort /log | uniq -c", /1 child USR2\n(.*\n)* *2 got USR2/);
});

/** Leaves a process whose parent has ended, and tells its parent's pid then. */
const ORPHAN = "(sleep 1000 & echo $! >/orphan); sleep 0.2; grep PPid /proc/$(cat /orphan)/status";
/** A zombie would still have its folder. */
const REAPED = "kill $(cat /orphan); sleep 1; test ! -e /proc/$(cat /orphan) && echo gone";

test.serial("an orphan is adopted by the container's init, or without a pid namespace by the guest's, and reaped", async (t) => {
  t.timeout(hangLimitMs * 2);
  t.is(await scratch.sh("listener", `${ORPHAN}; ${REAPED}`), "PPid:\t1\ngone");
  const out = await sh(t, "no-pid-namespace", `echo $$; ${ORPHAN}; ${REAPED}`, (spec) => {
    spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== "pid");
  });
  const [own, ...rest] = out.split("\n");
  t.true(Number(own) > 1, out);
  t.deepEqual(rest, ["PPid:\t1", "gone"]);
});

test.serial("ps: the processes by their pids in the container; as JSON those with one on the host", async (t) => {
  t.timeout(hangLimitMs);
  const table = await scratch.ok(["ps", "listener"]);
  t.regex(table, /^UID +PID +PPID +CMD\n/);
  // A line each, although the arguments have several.
  t.regex(table, /^0 +1 +0 +sh -c for signal.*echo ready.*$/m);
  t.regex(table, /^0 +\d+ +1 +sh -c for signal.*$/m);
  t.deepEqual(JSON.parse(await scratch.ok(["ps", "--format", "json", "listener"])), [(await scratch.state("listener")).pid]);
});

test.serial("events --stats: what the container uses, and its limits", async (t) => {
  t.timeout(hangLimitMs);
  type Numbers = Record<string, number>;
  const event = JSON.parse(await scratch.ok(["events", "--stats", "listener"])) as {
    type: string;
    id: string;
    data: { cpu: { usage: Numbers }; memory: { usage: Numbers; raw: Numbers }; pids: Numbers; hugetlb: Record<string, Numbers> };
  };
  t.like(event, {
    type: "stats",
    id: "listener",
    data: { pids: { limit: 100 }, memory: { usage: { limit: 1 << 26 } }, hugetlb: { "2MB": { usage: 0, failcnt: 0 } } },
  });
  const { cpu, memory, pids } = event.data;
  t.true((cpu.usage["total"] ?? 0) > 0 && (pids["current"] ?? 0) >= 2);
  t.true((memory.usage["usage"] ?? 0) > 4096 && (memory.usage["max"] ?? 0) >= (memory.usage["usage"] ?? 0) && (memory.raw["anon"] ?? 0) > 0);
});

test.serial("exec with flags: user, groups, folder, environment, capabilities, no_new_privs", async (t) => {
  t.timeout(hangLimitMs);
  const flags = ["--user", "1000:1001", "--additional-gids", "2000,2001", "--cwd", "/proc", "--env", "MARK=a b", "--cap", "CAP_SYS_TIME", "--no-new-privs"];
  const outcome = await scratch.exec("listener", ["sh", "-c", `id -u; id -G; pwd; echo $MARK; ${PRIVILEGES}`], { flags });
  const lines = outcome.stdout.trim().split("\n");
  t.deepEqual(lines.slice(0, 4), ["1000", "1001 2000 2001", "/proc", "a b"]);
  const [bounding = "", privileges] = lines.slice(-3).filter((line) => !line.startsWith("CapAmb"));
  t.is(BigInt(`0x${bounding.slice("CapBnd:".length)}`) & (1n << 25n), 1n << 25n, bounding);
  t.is(privileges, "NoNewPrivs:1");
});

/** The sets of an exec'ed process. */
async function capabilitySets(id: string, flags: string[] = []): Promise<string[]> {
  const outcome = await scratch.exec(id, ["grep", "^Cap", "/proc/self/status"], { flags });
  return outcome.stdout.trim().replaceAll("\t", "").split("\n");
}

/** Lines of proc(5)'s status. */
const sets = (inheritable: bigint, permitted: bigint, bounding: bigint, ambient: bigint): string[] =>
  Object.entries({ CapInh: inheritable, CapPrm: permitted, CapEff: permitted, CapBnd: bounding, CapAmb: ambient }).map(
    ([name, set]) => `${name}:${set.toString(16).padStart(16, "0")}`,
  );

const [CHOWN, KILL, NET_BIND_SERVICE, SYS_TIME, AUDIT_WRITE, SYSLOG] = [1n << 0n, 1n << 5n, 1n << 10n, 1n << 25n, 1n << 29n, 1n << 34n] as const;

test.serial("exec --cap: permitted, effective and bounding; ambient, too, where the container's process has it to inherit", async (t) => {
  t.timeout(hangLimitMs * 2);
  const own = KILL | NET_BIND_SERVICE | AUDIT_WRITE;
  t.deepEqual(await capabilitySets("listener"), sets(0n, own, own, 0n));
  const more = own | SYS_TIME;
  t.deepEqual(await capabilitySets("listener", ["--cap", "CAP_SYS_TIME"]), sets(0n, more, more, 0n));
  t.regex((await scratch.exec("listener", ["date", "-s", "@1"])).stderr, /permitted/);

  const joined = await joinPod(scratch, "pod");
  await scratch.running("inherits", (spec) => {
    joined(spec);
    spec.process.user = { uid: 1000, gid: 1000 };
    spec.process.capabilities = {
      bounding: ["CAP_CHOWN", "CAP_SYSLOG"],
      permitted: ["CAP_CHOWN"],
      inheritable: ["CAP_CHOWN", "CAP_SYSLOG"],
      ambient: ["CAP_CHOWN"],
    };
  });
  const [both, all] = [CHOWN | SYSLOG, CHOWN | SYSLOG | SYS_TIME];
  t.deepEqual(await capabilitySets("inherits"), sets(both, CHOWN, both, CHOWN));
  t.deepEqual(await capabilitySets("inherits", ["--cap", "CAP_SYSLOG", "--cap", "CAP_SYS_TIME"]), sets(both, both, all, both));
  await scratch.ok(["delete", "--force", "inherits"]);
});

/** Runs `exec --process` with this object. */
async function execProcess(name: string, change: object) {
  const file = join(scratch.folder, `${name}.json`);
  writeFileSync(file, JSON.stringify({ cwd: "/", env: ["PATH=/bin"], user: { uid: 0, gid: 0 }, ...change }));
  return await scratch.tskata(["exec", "--process", file, "listener"]);
}

test.serial("exec --process: nothing but what the file says", async (t) => {
  t.timeout(hangLimitMs);
  const outcome = await execProcess("all", {
    args: ["sh", "-c", `id -u; id -G; umask; pwd; env | sort; cat /proc/self/oom_score_adj; ulimit -n; ${PRIVILEGES}`],
    env: ["PATH=/bin", "B=2", "A=1"],
    cwd: "/bin",
    user: { uid: 7, gid: 8, additionalGids: [9], umask: 0o077 },
    rlimits: [{ type: "RLIMIT_NOFILE", soft: 99, hard: 100 }],
    oomScoreAdj: 500,
    capabilities: { bounding: ["CAP_CHOWN"], permitted: [], effective: [] },
    noNewPrivileges: true,
  });
  t.deepEqual(outcome.stdout.trim().split("\n"), [
    ...["7", "8 9", "0077", "/bin", "A=1", "B=2", "HOME=/", "PATH=/bin", "PWD=/bin", "SHLVL=1", "500", "99"],
    ...["CapInh:0000000000000000", "CapPrm:0000000000000000", "CapEff:0000000000000000", "CapBnd:0000000000000001", "CapAmb:0000000000000000"],
    "NoNewPrivs:1",
  ]);
});

test.serial("exec --process: capabilities that the container's own process has not", async (t) => {
  t.timeout(hangLimitMs);
  const only = ["CAP_SYS_TIME"];
  const args = ["sh", "-c", "grep ^Cap /proc/self/status | tr -d '\\t'"];
  const given = await execProcess("given", { args, capabilities: { bounding: only, permitted: only, effective: only } });
  t.deepEqual(given.stdout.trim().split("\n"), sets(0n, SYS_TIME, SYS_TIME, 0n), describe(given));
});

test.serial("exec's CPUs, before and after it joins the cgroup; one that the guest has not is refused by the field's name", async (t) => {
  t.timeout(hangLimitMs);
  const pinned = await execProcess("pinned", { args: ["grep", "Cpus_allowed_list", "/proc/self/status"], execCPUAffinity: { initial: "0", final: "0" } });
  t.is(pinned.stdout, "Cpus_allowed_list:\t0\n", describe(pinned));
  for (const field of ["initial", "final"]) {
    const refused = await execProcess(field, { args: ["true"], execCPUAffinity: { [field]: "1000" } });
    t.not(refused.code, 0);
    t.regex(refused.stderr, new RegExp(`set process\\.execCPUAffinity\\.${field}: EINVAL`));
  }
});

test.serial("an exec'ed process is with the init where that has left for a cgroup of its own, or where exec --cgroup says", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "pod");
  await scratch.running("moved", (spec) => {
    joined(spec);
    spec.process.args = ["sh", "-c", "cd /sys/fs/cgroup && mkdir own other && echo 1 >own/cgroup.procs && exec sleep 100000"];
    for (const { destination, options } of spec.mounts) if (destination === "/sys/fs/cgroup") options?.splice(options.indexOf("ro"), 1);
  });
  await scratch.sh("moved", "until grep -q own /proc/1/cgroup; do sleep 0.1; done");
  const beside = scratch.spawn(["exec", "moved", "sh", "-c", "cat /proc/self/cgroup; exec sleep 100000"]);
  const [place] = (await once(beside.stdout as Readable, "data")) as [Buffer];
  t.is(place.toString(), "0::/own\n");
  // A process in the container's own cgroup would keep its init from this: EBUSY (cgroup v2 has no processes in inner nodes).
  t.is(await scratch.sh("moved", "echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control; cat /sys/fs/cgroup/cgroup.subtree_control"), "memory pids");
  t.is((await scratch.exec("moved", ["cat", "/proc/self/cgroup"], { flags: ["--cgroup", "other"] })).stdout, "0::/other\n");
  const outside = await scratch.exec("moved", ["true"], { flags: ["--cgroup", "../pod"] });
  t.not(outside.code, 0);
  t.regex(outside.stderr, /exec failed: sub cgroup .*\.\.\/pod.* leaves the container's cgroup/);
  await scratch.ok(["delete", "--force", "moved"]);
});

// -- hooks -----------------------------------------------------------------------------------------------------------------

/** A hook that writes its name down, then `ending`. */
function noting(name: string, ending = "true"): { path: string; args: string[] } {
  return { path: "/bin/sh", args: ["sh", "-c", `echo ${name} >>"${join(scratch.folder, "noted")}"; ${ending}`] };
}

function noted(): string {
  const file = join(scratch.folder, "noted");
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  writeFileSync(file, "");
  return text.trim().replaceAll("\n", " ");
}

test.serial("a hook of create that fails: no later one runs, all is undone, then poststop ones run", async (t) => {
  for (const kind of ["prestart", "createRuntime", "createContainer"]) {
    const outcome = await run(t, `failing-${kind}`, (spec) => {
      spec.hooks = {
        poststop: [noting("poststop", `test -e "${join(scratch.root, `failing-${kind}`)}" && echo early >>"${join(scratch.folder, "noted")}"`), noting("both")],
      };
      for (const name of ["prestart", "createRuntime", "createContainer", "poststart"]) spec.hooks[name] = [noting(name, name === kind ? "exit 9" : "true")];
    });
    t.not(outcome.code, 0);
    t.regex(outcome.stderr, /error running hook #\d: error running hook: exit status 9/);
    const before = { prestart: "prestart", createRuntime: "prestart createRuntime", createContainer: "prestart createRuntime createContainer" }[kind];
    t.is(noted(), `${before} poststop both`);
    t.regex((await scratch.tskata(["state", `failing-${kind}`])).stderr, /container does not exist/);
  }
});

test.serial("a poststop hook runs in the bundle's folder, and in / when that has gone", async (t) => {
  t.timeout(hangLimitMs * 2);
  const joined = await joinPod(scratch, "pod");
  const stopped = async (id: string): Promise<string> => {
    const bundle = await scratch.bundle((spec) => {
      joined(spec);
      spec.process.args = ["true"];
      spec.hooks = { poststop: [noting("$(pwd)")] };
    });
    await scratch.create(id, bundle);
    await scratch.ok(["start", id]);
    await scratch.until(id, "stopped");
    return bundle;
  };
  const kept = await stopped("bundle-kept");
  await scratch.ok(["delete", "bundle-kept"]);
  t.is(noted(), kept);
  rmSync(await stopped("bundle-gone"), { recursive: true });
  await scratch.ok(["delete", "bundle-gone"]);
  t.is(noted(), "/");
});

test.serial("a startContainer hook has its own environment and the state; its output is not the container's", async (t) => {
  const state = "tskata-hook-state";
  const bundles: string[] = [];
  const edit = (spec: Spec): void => {
    spec.hooks = { startContainer: [{ path: "/bin/sh", args: ["sh", "-c", `cat >/${state}; env >/hook-env; echo noise`], env: ["ONLY=this"] }] };
  };
  const out = await sh(t, "start-hook", `cat /${state}; echo; grep -v -e PWD -e SHLVL -e PATH /hook-env`, edit, (bundle) => void bundles.push(bundle));
  const [json = "", ...environment] = out.split("\n");
  t.like(JSON.parse(json), { id: "start-hook", status: "created", pid: 1, bundle: bundles[0], ociVersion: "1.2.0" });
  t.deepEqual(environment, ["ONLY=this"]);
});

test.serial("a startContainer hook that fails or runs too long: the program does not run, delete runs poststop ones", async (t) => {
  const failing = async (id: string, script: string, timeout?: number) =>
    await run(t, id, (spec) => {
      spec.process.args = ["sh", "-c", "echo ran"];
      spec.hooks = {
        startContainer: [
          { path: "/bin/sh", args: ["sh", "-c", "true"] },
          { path: "/bin/sh", args: ["sh", "-c", script], ...(timeout === undefined ? {} : { timeout }) },
        ],
        poststart: [noting("poststart")],
        poststop: [noting("poststop")],
      };
    });
  const failed = await failing("hook-fails", "echo out; echo err >&2; exit 3");
  t.regex(failed.stderr, /error running startContainer hook #1 \(\/bin\/sh\): exit status 3, stdout: out"?(\n|\\n), stderr: err/);
  const slow = await failing("hook-hangs", "sleep 1000 & wait", 1);
  t.regex(slow.stderr, /startContainer hook #1 \(\/bin\/sh\): hook ran past specified timeout of 1\.0s/);
  for (const outcome of [failed, slow]) {
    t.not(outcome.code, 0);
    t.is(outcome.stdout, "");
  }
  t.is(noted(), "poststop poststop");
});

test.serial("poststart and poststop hooks that fail are told, and nothing else comes of it", async (t) => {
  const outcome = await run(t, "lenient", (spec) => {
    spec.process.args = ["echo", "ran"];
    spec.hooks = { poststart: [noting("poststart", "exit 1"), noting("another")], poststop: [noting("poststop", "exit 2"), noting("last")] };
  });
  t.deepEqual([outcome.code, outcome.stdout], [0, "ran\n"], describe(outcome));
  t.regex(outcome.stderr, /exit status 1(.|\n)*exit status 2/);
  t.is(noted(), "poststart another poststop last");
});

// -- the machine -----------------------------------------------------------------------------------------------------------

test.serial("a guest that floods its console does not fill the host's disk: beginning and end are kept", async (t) => {
  // Each byte leaves the guest, which in the testbed is two machines: there not much more than what is kept.
  t.timeout(hangLimitMs * 5);
  const bytes = amount === 1 ? 1_600_000 : 1_100_000;
  const flood = `yes 'a line of a flood on the console' | head -c ${bytes} >/dev/ttyS0; echo the last line >/dev/ttyS0`;
  await sh(t, "flood", flood, (spec) => {
    spec.linux.devices = [{ path: "/dev/ttyS0", type: "c", major: 4, minor: 64, fileMode: 0o666 }];
    spec.linux.resources = { devices: [{ allow: true, access: "rwm" }] };
  });
  const log = join(scratch.root, "pod/pod/console.log");
  for (const end = Date.now() + 60_000; !readFileSync(log, "utf8").includes("the last line") && Date.now() < end; ) {
    await after(500);
  }
  const text = readFileSync(log, "utf8");
  t.regex(text, /bytes of console output left out here/);
  t.regex(text, /the last line\s*$/);
  t.true(text.length <= 1024 * 1024, String(text.length));
});
