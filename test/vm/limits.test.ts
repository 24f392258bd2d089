/** What a container's config takes away stays away: resources, files, privileges, system calls. */
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("limits");
test.after.always("clean up", async () => await scratch.cleanUp());

test.before("one container with every limit that does not end it", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.running("c", (spec) => {
    spec.root.readonly = true;
    spec.hostname = "limited";
    spec.linux.resources = {
      memory: { limit: 64 * 1024 * 1024 },
      pids: { limit: 20 },
      cpu: { quota: 20_000, period: 100_000, shares: 512 },
      unified: { "memory.high": "60000000" },
    };
    spec.linux.maskedPaths = ["/proc/kcore", "/proc/interrupts", "/sys/firmware"];
    spec.linux.readonlyPaths = ["/proc/sys"];
    spec.linux.sysctl = { "net.ipv4.ip_forward": "1" };
    spec.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 123, hard: 456 }];
    spec.process.oomScoreAdj = 77;
    const kept = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
    spec.process.capabilities = { bounding: kept, effective: kept, permitted: kept };
    spec.mounts.push({ destination: "/scratch", type: "tmpfs", source: "tmpfs", options: ["nosuid", "noexec", "size=1m", "mode=1777"] });
    spec.linux.seccomp = {
      defaultAction: "SCMP_ACT_ALLOW",
      architectures: ["SCMP_ARCH_X86_64"],
      syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 38 }],
    };
  });
});

test.serial("the cgroup holds the values asked for", async (t) => {
  t.timeout(hangLimitMs);
  const read = async (file: string): Promise<string> => await scratch.sh("c", `cat /sys/fs/cgroup/${file}`);
  t.is(await read("memory.max"), String(64 * 1024 * 1024));
  t.is(await read("pids.max"), "20");
  t.is(await read("cpu.max"), "20000 100000");
  t.is(await read("memory.high"), String(Math.floor(60_000_000 / 4096) * 4096));
});

test.serial("the pids limit bites", async (t) => {
  t.timeout(hangLimitMs);
  // A container of its own: nobody in "c" reaps what a shell that can't fork leaves behind.
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "for i in $(seq 40); do sleep 3 & done; wait"];
    spec.linux.resources = { pids: { limit: 20 } };
  });
  const outcome = await scratch.tskata(["run", "--bundle", bundle, "forks"]);
  t.regex(outcome.stderr, /can't fork|Resource temporarily unavailable/);
});

test.serial("the cpu quota bites", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.exec("c", ["timeout", "2", "sh", "-c", "while :; do :; done"]);
  const stat = await scratch.sh("c", "cat /sys/fs/cgroup/cpu.stat");
  t.true(Number(/nr_throttled (\d+)/.exec(stat)?.[1]) > 0, stat);
});

test.serial("the root filesystem is read-only, its tmpfs is limited", async (t) => {
  t.timeout(hangLimitMs);
  t.regex((await scratch.exec("c", ["touch", "/file"])).stderr, /Read-only file system/);
  t.regex((await scratch.exec("c", ["dd", "if=/dev/zero", "of=/scratch/f", "bs=1M", "count=2"])).stderr, /No space left/);
});

test.serial("masked and read-only paths", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("c", "cat /proc/interrupts | wc -c"), "0");
  t.regex((await scratch.exec("c", ["sh", "-c", "echo 0 >/proc/sys/kernel/hostname"])).stderr, /Read-only file system/);
  t.is(await scratch.sh("c", "cat /proc/sys/net/ipv4/ip_forward"), "1");
});

test.serial("dropped capabilities are gone", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("c", "grep CapEff /proc/self/status"), "CapEff:\t00000000000000e1");
  t.regex((await scratch.exec("c", ["mount", "-t", "tmpfs", "t", "/scratch"])).stderr, /[Pp]ermission denied|Operation not permitted/);
  t.regex((await scratch.exec("c", ["hostname", "other"])).stderr, /Operation not permitted/);
});

test.serial("a system call that seccomp denies fails with the profile's errno", async (t) => {
  t.timeout(hangLimitMs);
  t.regex((await scratch.exec("c", ["mkdir", "/scratch/folder"])).stderr, /Function not implemented/);
});

test.serial("rlimits, oom_score_adj, hostname, user", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("c", "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; hostname"), "123\n456\n77\nlimited");
  const user = await scratch.exec("c", ["id"], { flags: ["--user", "1000:1000", "--additional-gids", "2000"] });
  t.regex(user.stdout, /uid=1000\(user\) gid=1000\(user\) groups=.*2000/);
});

test.serial("update changes a running container's limits", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.ok(["update", "--resources", "-", "c"], { input: JSON.stringify({ pids: { limit: 33 }, cpu: { quota: 50_000, period: 100_000 } }) });
  t.is(await scratch.sh("c", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"), "33\n50000 100000");
});

test.serial("the guest's OOM kill is told as such in events and state", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "sleep 3; exec tail /dev/zero"];
    spec.linux.resources = { memory: { limit: 32 * 1024 * 1024, swap: 32 * 1024 * 1024 } };
  });
  await scratch.create("oom", bundle);
  const events = scratch.spawn(["events", "oom"]);
  let seen = "";
  events.stdout?.on("data", (part: Buffer) => {
    seen += part.toString();
  });
  await scratch.ok(["start", "oom"]);
  await scratch.until("oom", "stopped");
  const end = Date.now() + 20_000;
  while (!seen.includes('"oom"') && Date.now() < end) await after(100);
  events.kill("SIGTERM");
  t.regex(seen, /\{"type":"oom","id":"oom"/);
  t.is((await scratch.state("oom")).annotations?.["io.tskata.oom-killed"], "true");
  await scratch.ok(["delete", "oom"]);
});

test.serial("a user namespace maps the container's root", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "cat /proc/self/uid_map; id -u"];
    spec.linux.namespaces.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  });
  const out = await scratch.ok(["run", "--bundle", bundle, "userns"]);
  t.regex(out, /^\s+0\s+100000\s+65536\n0\n$/);
});
