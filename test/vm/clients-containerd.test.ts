/** What containerd sends, as it was recorded: of its CRI plugin a pod, of `ctr run` containers, which join the pod's machine. */
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { configOf, execReporting, joinProcess, type Report, runReporting, showCgroup, writeClientBundle } from "../helpers/clients.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("containerd");
test.after.always("clean up", async () => await scratch.cleanUp());

/** A pod's sandbox container, as the CRI plugin makes it; its pid. */
async function startSandbox(t: ExecutionContext, id: string, name: string): Promise<number> {
  t.timeout(hangLimitMs);
  const config = configOf("containerd", name);
  for (const namespace of config.linux?.namespaces ?? []) if (namespace.type === "network") delete namespace.path;
  Object.assign(config.annotations ?? {}, { "io.kubernetes.cri.sandbox-id": id });
  showCgroup(config);
  await scratch.create(id, writeClientBundle(join(scratch.folder, id), config));
  await scratch.ok(["start", id]);
  await execReporting(t, scratch, id, config);
  return (await scratch.state(id)).pid;
}

let pause = 0;

test.serial.before("the pod's sandbox container", async (t) => {
  pause = await startSandbox(t, "pause", "cri-sandbox");
});

async function run(t: ExecutionContext, name: string, more: Readonly<Record<string, string>> = {}, pod = "pause", pid = pause): Promise<Report> {
  t.timeout(hangLimitMs);
  const config = configOf("containerd", name);
  joinProcess(config, pid);
  if (config.annotations?.["io.kubernetes.cri.sandbox-id"] !== undefined) config.annotations["io.kubernetes.cri.sandbox-id"] = pod;
  return await runReporting(t, scratch, name, config, more);
}

test.serial("the pod's sysctl is set, its first container's init is what was asked for", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("pause", "cat /proc/sys/net/ipv4/ip_forward; hostname; cat /proc/1/oom_score_adj"), "1\none\n-998");
});

test.serial("a container with limits and the runtime's default profile shares ipc, uts and the network", async (t) => {
  const report = await run(t, "cri-container", {
    joined: "for t in ipc uts net; do readlink /proc/self/ns/$t; done",
    limits: "cd /sys/fs/cgroup; cat memory.max cpu.weight",
    user: "unshare -U true",
  });
  t.is(report["joined"], await scratch.sh("pause", "for t in ipc uts net; do readlink /proc/self/ns/$t; done"));
  t.is(report["limits"], `${64 << 20}\n20`);
  t.regex(report["user"] ?? "", /ermission|permitted/);
});

test.serial("a pod whose containers share its pid namespace", async (t) => {
  const pid = await startSandbox(t, "sharing", "cri-sandbox-shared-pid");
  const report = await run(t, "cri-container-shared-pid", { joined: "readlink /proc/self/ns/pid" }, "sharing", pid);
  t.is(report["init"], "sleep 100000");
  t.is(report["joined"], await scratch.sh("sharing", "readlink /proc/self/ns/pid"));
  await scratch.ok(["delete", "--force", "sharing"]);
});

test.serial("a privileged pod and its container", async (t) => {
  const pid = await startSandbox(t, "privileged", "cri-sandbox-privileged");
  const report = await run(t, "cri-privileged", { mount: "mkdir /m && mount -t tmpfs none /m && echo mounted" }, "privileged", pid);
  t.is(report["mount"], "mounted");
  await scratch.ok(["delete", "--force", "privileged"]);
});

test.serial("ctr run: the defaults, --seccomp, --privileged, --read-only, --cwd and --env", async (t) => {
  for (const name of ["ctr-default", "ctr-seccomp", "ctr-privileged", "ctr-null-io"]) await run(t, name);
  const report = await run(t, "ctr-read-only", { write: "touch /file" });
  t.regex(report["write"] ?? "", /Read-only file system/);
});

test.serial("nothing is left when the pod has gone", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.ok(["delete", "--force", "pause"]);
  t.deepEqual(await scratch.settledLeftovers(), []);
});
