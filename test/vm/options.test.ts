/** What of config.json is rarely set: each in a container of its own, all in one pod's machine. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { joinPod, startPod } from "../helpers/pod.ts";
import { describe, hangLimitMs, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("options");
test.after.always("clean up", async () => await scratch.cleanUp());

test.before("the pod", async (t) => {
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
  const disk = await scratch.sh("pod", 'awk \'$4 == "vda" { print $1 ":" $2 }\' /proc/partitions');
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

// -- the machine -----------------------------------------------------------------------------------------------------------

test.serial("a guest that floods its console does not fill the host's disk: beginning and end are kept", async (t) => {
  const flood = "yes 'a line of a flood on the console' | head -c 1600000 >/dev/ttyS0; echo the last line >/dev/ttyS0";
  await sh(t, "flood", flood, (spec) => {
    spec.linux.devices = [{ path: "/dev/ttyS0", type: "c", major: 4, minor: 64, fileMode: 0o666 }];
    spec.linux.resources = { devices: [{ allow: true, access: "rwm" }] };
  });
  const log = join(scratch.root, "pod/pod/console.log");
  for (const end = Date.now() + 60_000; !readFileSync(log, "utf8").includes("the last line") && Date.now() < end; ) {
    await new Promise((wake) => setTimeout(wake, 500));
  }
  const text = readFileSync(log, "utf8");
  t.regex(text, /bytes of console output left out here/);
  t.regex(text, /the last line\s*$/);
  t.true(text.length <= 1024 * 1024, String(text.length));
});
