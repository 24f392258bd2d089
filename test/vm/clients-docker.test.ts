/** What dockerd sends for `docker run` with each of its options, as it was recorded: all containers in the machine of the first. */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import type { Spec } from "../../src/oci/spec.ts";
import { configOf, execReporting, joinProcess, type Report, runReporting, writeClientBundle } from "../helpers/clients.ts";
import { describe, hangLimitMs, outcomeOf, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("docker");
test.after.always("clean up", async () => await scratch.cleanUp());

let pid = 0;

test.serial.before("the first container, as Docker makes it: its hook finds a network of its own by the pid that it is given", async (t) => {
  t.timeout(hangLimitMs);
  const config = configOf("docker", "ipc-shareable");
  const seen = join(scratch.folder, "state");
  t.is(config.hooks?.prestart?.length, 1);
  // In place of /proc/PID/exe of the recorded dockerd.
  const script = `cat >"${seen}"; readlink /proc/$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/' "${seen}")/ns/net >"${seen}.network"`;
  config.hooks = { prestart: [{ path: "/bin/sh", args: ["sh", "-c", script], env: ["PATH=/usr/bin:/bin"] }] };
  await scratch.create("first", writeClientBundle(join(scratch.folder, "first"), config));
  await scratch.ok(["start", "first"]);
  pid = (await scratch.state("first")).pid;
  t.like(JSON.parse(readFileSync(seen, "utf8")), { id: "first", pid });
  const network = readFileSync(`${seen}.network`, "utf8").trim();
  t.is(network, readlinkSync(`/proc/${pid}/ns/net`));
  t.not(network, readlinkSync("/proc/self/ns/net"));
  await execReporting(t, scratch, "first", config);
});

/** Runs it as `docker run … --network container:first` would, which makes it one of the first one's machine. */
async function run(t: ExecutionContext, name: string, more: Readonly<Record<string, string>> = {}, edit: (config: Spec) => void = () => {}): Promise<Report> {
  t.timeout(hangLimitMs);
  const config = configOf("docker", name);
  delete config.hooks;
  joinProcess(config, pid);
  edit(config);
  return await runReporting(t, scratch, name, config, more);
}

/** Its network is its own: it starts a machine, or joins one by its other namespaces. */
function alone(config: Spec): void {
  for (const namespace of config.linux?.namespaces ?? []) if (namespace.type === "network") delete namespace.path;
}

const MOUNT = "mkdir -p /m && mount -t tmpfs none /m && echo mounted";

test.serial("the defaults", async (t) => {
  const device = "mknod /null c 1 3 && echo x >/null; mknod /fuse c 10 229 && : </fuse";
  const report = await run(t, "default", { mount: MOUNT, user: "unshare -U true", device, hosts: "cat /etc/hosts" });
  t.regex(report["mount"] ?? "", /ermission|permitted/);
  t.regex(report["user"] ?? "", /ermission|permitted/);
  t.regex(report["device"] ?? "", /^\S+ (line \d+: )?can't open \/fuse: Operation not permitted$/);
  t.is(report["hosts"], "the host's hosts");
});

test.serial("--privileged", async (t) => {
  const report = await run(t, "privileged", { mount: MOUNT, device: ": </dev/fuse && echo open", sysctl: "echo 1 >/proc/sys/net/ipv4/ip_forward && echo set" });
  t.deepEqual([report["mount"], report["device"], report["sysctl"]], ["mounted", "open", "set"]);
});

test.serial("--cap-add and --cap-drop", async (t) => {
  const clock = "date -s @$(date +%s) >/dev/null && echo set";
  t.is((await run(t, "cap-add", { clock }))["clock"], "set");
  const report = await run(t, "caps", { clock, owner: "touch /f; chown 1:1 /f && echo owned", other: "chmod 600 /f" });
  t.regex(report["clock"] ?? "", /permitted/);
  t.is(report["owner"], "owned");
  t.regex(report["other"] ?? "", /permitted/);
});

test.serial("--security-opt seccomp=unconfined, a profile of one's own, no-new-privileges", async (t) => {
  t.is((await run(t, "seccomp-unconfined", { user: "unshare -U true && echo new" }))["user"], "new");
  t.regex((await run(t, "seccomp-custom", { folder: "pwd", mkdir: "mkdir /made" }))["mkdir"] ?? "", /Function not implemented/);
  await run(t, "no-new-privileges");
});

test.serial("--device and --device-cgroup-rule", async (t) => {
  const report = await run(t, "device", {
    fuse: ": </dev/fuse && echo open",
    nothing: "echo x >/dev/nothing && wc -c </dev/nothing",
    rule: "mknod /tun c 10 200 && : <>/tun && echo open",
  });
  t.deepEqual([report["fuse"], report["nothing"], report["rule"]], ["open", "0", "open"]);
});

test.serial("--ulimit, --sysctl, --shm-size", async (t) => {
  await run(t, "ulimit");
  t.is((await run(t, "sysctl"))["sysctls"]?.split("\n").length, 5);
  t.regex((await run(t, "shm-size", { shm: "df -k /dev/shm | tail -1" }))["shm"] ?? "", /^shm +131072 /);
});

test.serial("--tmpfs", async (t) => {
  const program = "cp /bin/busybox /run/true && /run/true; dd if=/dev/zero of=/run/big bs=1M count=70 2>&1 | head -1; touch /scratch/file && echo written";
  const report = await run(t, "tmpfs", { program });
  t.regex(report["program"] ?? "", /Permission denied\n.*No space left on device\nwritten$/);
});

test.serial("--init: it is number 1, and reaps", async (t) => {
  const report = await run(t, "init", { orphan: "(sleep 0.1 &); sleep 0.5; ps -o stat | grep -c Z" });
  t.regex(report["init"] ?? "", /^\/sbin\/docker-init -- sh -c/);
  t.is(report["orphan"], "0");
});

test.serial("--read-only", async (t) => {
  t.regex((await run(t, "read-only", { write: "touch /file" }))["write"] ?? "", /Read-only file system/);
});

test.serial("--cgroupns host, --ipc none", async (t) => {
  await run(t, "cgroupns-host");
  t.is((await run(t, "ipc-none", { shm: "test -e /dev/shm || echo none" }))["shm"], "none");
});

test.serial("--pid, --ipc and --uts host are the guest's", async (t) => {
  t.regex((await run(t, "pid-host"))["init"] ?? "", /node/);
  t.is((await run(t, "uts-host"))["hostname"], configOf("docker", "ipc-shareable").hostname);
  await run(t, "ipc-host");
});

test.serial("--user, --group-add, --workdir, --env, --hostname, --oom-score-adj", async (t) => {
  await run(t, "user");
});

test.serial("-v: one to read, one to write", async (t) => {
  const report = await run(t, "volume", { read: "touch /volume/file", write: "echo written >/data/file" });
  t.regex(report["read"] ?? "", /Read-only file system/);
  const sources = join(scratch.folder, "bundle-volume/sources");
  const written = readdirSync(sources).filter((name) => existsSync(join(sources, name, "file")));
  t.deepEqual(
    written.map((name) => readFileSync(join(sources, name, "file"), "utf8")),
    ["written\n"],
  );
});

test.serial("--userns-remap of the daemon", async (t) => {
  const report = await run(t, "userns-remap", { map: "cat /proc/self/uid_map", file: "touch /file && stat -c %u /file" });
  t.regex(report["map"] ?? "", /^0 +100000 +65536$/);
  t.is(report["file"], "0");
  t.is(lstatSync(join(scratch.folder, "bundle-userns-remap/rootfs/file")).uid, 100_000, "on the host");
});

test.serial("-it: a terminal, by a console socket", async (t) => {
  const report = await run(t, "terminal", { terminal: "tty <&2; stat -c '%F %t' /dev/console" });
  t.is(report["terminal"], "/dev/pts/0\ncharacter special file 88");
});

test.serial("--network none: a machine of its own, with the loopback device alone", async (t) => {
  const seen = await run(t, "network-none", { links: "ls /sys/class/net", addresses: "ip -o addr" }, alone);
  t.is(seen["links"], "lo");
  t.regex(seen["addresses"] ?? "", /^(\d+: lo .*(\n|$))+$/);
});

test.serial("on a host with cgroup v1: the defaults, and limits", async (t) => {
  await run(t, "cgroup-v1-default");
  const files = "memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max";
  const report = await run(t, "cgroup-v1-limits", { values: `cd /sys/fs/cgroup; cat ${files}` });
  t.deepEqual(report["values"]?.split("\n"), [String(64 << 20), String(32 << 20), String(32 << 20), "50000 100000", "20", "0", "50"]);
});

test.serial("--ipc, --pid and --network container:X: the namespace of X, in its machine", async (t) => {
  for (const [type, file] of [
    ["ipc", "ipc"],
    ["pid", "pid"],
    ["network", "net"],
  ] as const) {
    const own = await scratch.sh("first", `readlink /proc/self/ns/${file}`);
    const report = await run(t, `${type}-container`, { joined: `readlink /proc/self/ns/${file}` }, type === "network" ? undefined : alone);
    t.is(report["joined"], own, type);
    if (type === "pid") t.is(report["init"], "sleep 100000");
  }
});

test.serial("when X has gone, what has joined its ipc namespace or network goes on; its pid namespace ends with its init", async (t) => {
  t.timeout(hangLimitMs);
  const joining = (type: string): string => {
    const config = configOf("docker", `${type}-container`);
    delete config.hooks;
    joinProcess(config, pid);
    Object.assign(config.process ?? {}, { args: ["sh", "-c", "echo here; sleep 100000"] });
    return writeClientBundle(join(scratch.folder, `joined-${type}`), config);
  };
  const links = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/net";
  const before = await scratch.sh("first", links);
  await scratch.create("joined", joining("ipc"));
  await scratch.ok(["start", "joined"]);
  const child = scratch.spawn(["run", "--bundle", joining("pid"), "same-pids"]);
  const begun = new Promise((done) => child.stdout?.once("data", done));
  const attended = outcomeOf(child, {});
  await Promise.race([begun, attended]);
  await scratch.ok(["delete", "--force", "first"]);
  const outcome = await attended;
  t.deepEqual([outcome.code, outcome.stdout], [137, "here\n"], describe(outcome));
  t.is(await scratch.sh("joined", links), before);
  await scratch.ok(["delete", "--force", "joined"]);
  t.deepEqual(await scratch.settledLeftovers(), []);
});
