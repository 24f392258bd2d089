/** What of config.json is rarely set: each in a container of its own, all in one pod's machine. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { joinPod, startPod } from "../helpers/pod.ts";
import { amount, describe, hangLimitMs, Scratch, type Spec } from "../helpers/tskata.ts";

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

test.serial("io weight and throttles reach the cgroup; a device that is not there is refused by name", async (t) => {
  // The guest's only disk is its own read-only image, so what can be shown is that the kernel has taken the values.
  const disk = await scratch.sh("pod", 'awk \'$4 == "vda" || $4 == "pmem0" { print $1 ":" $2 }\' /proc/partitions');
  t.regex(disk, /^\d+:0$/);
  const [major = 0, minor = 0] = disk.split(":").map(Number);
  const device = { major, minor };
  const edit = (spec: Spec): void => {
    spec.linux.resources = {
      blockIO: {
        weight: 500,
        throttleReadBpsDevice: [{ ...device, rate: 1_048_576 }],
        throttleWriteIOPSDevice: [{ ...device, rate: 77 }],
      },
    };
  };
  const out = await sh(t, "io", "cat /sys/fs/cgroup/io.weight /sys/fs/cgroup/io.max", edit);
  t.is(out, `default 4950\n${disk} rbps=1048576 wbps=max riops=max wiops=77`);
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
  const others = { pids: { limit: 55 }, blockIO: { weight: 300 }, hugepageLimits: [{ pageSize: "2MB", limit: mebibytes(4) }] };
  t.deepEqual(await updated("updated", others, "pids.max io.weight hugetlb.2MB.max"), ["55", "default 2930", String(mebibytes(4))]);

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
