/** What podman sends for `podman run` with each of its options, and for a pod, as it was recorded: all containers in the pod's machine. */
import { spawnSync } from "node:child_process";
import { lstatSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { configOf, execReporting, joinProcess, type Report, runReporting, writeClientBundle } from "../helpers/clients.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("podman");
test.after.always("clean up", async () => await scratch.cleanUp());

let pid = 0;

test.serial.before("the pod's first container, as podman makes it", async (t) => {
  t.timeout(hangLimitMs);
  const config = configOf("podman", "pod-infra");
  await scratch.create("infra", writeClientBundle(join(scratch.folder, "infra"), config));
  await scratch.ok(["start", "infra"]);
  pid = (await scratch.state("infra")).pid;
  await execReporting(t, scratch, "infra", config);
});

/** `alone`: it joins the machine by the namespaces in its own config, not by the network. */
async function run(t: ExecutionContext, name: string, more: Readonly<Record<string, string>> = {}, alone = false): Promise<Report> {
  t.timeout(hangLimitMs);
  const config = configOf("podman", name);
  joinProcess(config, pid);
  if (alone) for (const namespace of config.linux?.namespaces ?? []) if (namespace.type === "network") delete namespace.path;
  if (config.annotations?.["io.kubernetes.cri-o.SandboxID"] !== undefined) config.annotations["io.kubernetes.cri-o.SandboxID"] = "infra";
  return await runReporting(t, scratch, name, config, more);
}

test.serial("the defaults", async (t) => {
  t.is((await run(t, "default", { engine: "env | grep ^container=" }))["engine"], "container=podman");
});

test.serial("--privileged", async (t) => {
  const report = await run(t, "privileged", { mount: "mkdir /m && mount -t tmpfs none /m && echo mounted", device: ": </dev/fuse && echo open" });
  t.deepEqual([report["mount"], report["device"]], ["mounted", "open"]);
});

test.serial("--read-only with tmpfs for what programs write to, and without", async (t) => {
  const write = "for path in / /tmp /run /var/tmp; do touch $path/file 2>/dev/null && echo $path; done";
  t.is((await run(t, "read-only", { write }))["write"], "/tmp\n/run\n/var/tmp");
  t.is((await run(t, "read-only-notmpfs", { write }))["write"], "");
});

test.serial("--init", async (t) => {
  t.regex((await run(t, "init"))["init"] ?? "", /^\/run\/podman-init -- sh -c/);
});

test.serial("--cap-drop, --security-opt, --ulimit, --sysctl, --user", async (t) => {
  for (const name of ["caps", "seccomp-unconfined", "no-new-privileges", "ulimit", "sysctl", "user"]) await run(t, name);
});

test.serial("--uidmap and --userns auto", async (t) => {
  for (const [name, map, owner] of [
    ["uidmap", /^0 +100000 +65536$/, 100_000],
    ["userns-auto", /^0 +200000 +1024$/, 200_000],
  ] as const) {
    const report = await run(t, name, { map: "cat /proc/self/uid_map", file: "touch /file && stat -c %u /file" });
    t.regex(report["map"] ?? "", map);
    t.is(report["file"], "0");
    t.is(lstatSync(join(scratch.folder, `bundle-${name}/rootfs/file`)).uid, owner, "on the host");
  }
});

test.serial("--tmpfs, --device, --cgroupns host, --pid host", async (t) => {
  await run(t, "tmpfs");
  t.is((await run(t, "device", { fuse: ": </dev/fuse && echo open" }))["fuse"], "open");
  await run(t, "cgroupns-host");
  t.regex((await run(t, "pid-host"))["init"] ?? "", /node/);
});

test.serial("--shm-size: podman mounts it on the host, and the container sees that size", async (t) => {
  t.timeout(hangLimitMs);
  const config = configOf("podman", "shm-size");
  joinProcess(config, pid);
  const index = config.mounts?.findIndex(({ destination }) => destination === "/dev/shm") ?? -1;
  const shm = join(scratch.folder, "bundle-shm-size/sources", String(index));
  const mount = (command: string, ...args: string[]): void => void t.is(spawnSync(command, [...args, shm]).status, 0, command);
  const mounted = (): void => mount("mount", "-t", "tmpfs", "-o", "size=128m", "shm");
  try {
    const report = await runReporting(t, scratch, "shm-size", config, { shm: "stat -f -c '%b %S' /dev/shm" }, mounted);
    const [blocks, size] = (report["shm"] ?? "").split(" ").map(Number);
    t.is((blocks ?? 0) * (size ?? 0), 128 << 20);
  } finally {
    mount("umount");
  }
});

test.serial("--pid, --ipc, --uts and --network container:X: the namespace of X, in its machine", async (t) => {
  for (const [type, file] of [
    ["pid", "pid"],
    ["ipc", "ipc"],
    ["uts", "uts"],
    ["network", "net"],
  ] as const) {
    const own = await scratch.sh("infra", `readlink /proc/self/ns/${file}`);
    t.is((await run(t, `${type}-container`, { joined: `readlink /proc/self/ns/${file}` }, type !== "network"))["joined"], own, type);
  }
});

test.serial("--ipc shareable", async (t) => {
  await run(t, "ipc-shareable");
});

test.serial("containers of the pod", async (t) => {
  const of = async (id: string, types: string): Promise<string> => await scratch.sh(id, `for t in ${types}; do readlink /proc/self/ns/$t; done`);
  const joined = (types: string): Record<string, string> => ({ joined: `for t in ${types}; do readlink /proc/self/ns/$t; done` });
  t.is((await run(t, "pod-member", joined("ipc uts net")))["joined"], await of("infra", "ipc uts net"));
  t.is((await run(t, "pod-member-shared-pid", joined("pid ipc uts net")))["joined"], await of("infra", "pid ipc uts net"));
});

test.serial("nothing is left when the pod has gone", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.ok(["delete", "--force", "infra"]);
  t.deepEqual(await scratch.settledLeftovers(), []);
});
