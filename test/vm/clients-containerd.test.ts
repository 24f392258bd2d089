/** What containerd sends, as it was recorded: of its CRI plugin a pod, of `ctr run` containers, which join the pod's machine. */
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { configOf, joinProcess, type Report, runReporting, writeClientBundle } from "../helpers/clients.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("containerd");
test.after.always("clean up", async () => await scratch.cleanUp());

let pid = 0;

test.serial.before("the pod's sandbox container, as the CRI plugin makes it", async (t) => {
  t.timeout(hangLimitMs);
  const config = configOf("containerd", "cri-sandbox");
  for (const namespace of config.linux?.namespaces ?? []) if (namespace.type === "network") delete namespace.path;
  Object.assign(config.annotations ?? {}, { "io.kubernetes.cri.sandbox-id": "pause" });
  await scratch.create("pause", writeClientBundle(join(scratch.folder, "pause"), config));
  await scratch.ok(["start", "pause"]);
  pid = (await scratch.state("pause")).pid;
});

async function run(t: ExecutionContext, name: string, more: Readonly<Record<string, string>> = {}): Promise<Report> {
  t.timeout(hangLimitMs);
  const config = configOf("containerd", name);
  joinProcess(config, pid);
  if (config.annotations?.["io.kubernetes.cri.sandbox-id"] !== undefined) config.annotations["io.kubernetes.cri.sandbox-id"] = "pause";
  return await runReporting(t, scratch, name, config, more);
}

test.serial("the pod's sysctl is set, its first container is what was asked for", async (t) => {
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

test.serial("a container with the pod's pid namespace, and a privileged one", async (t) => {
  t.regex((await run(t, "cri-container-shared-pid"))["init"] ?? "", /^sleep 100000$/);
  t.is((await run(t, "cri-privileged", { mount: "mkdir /m && mount -t tmpfs none /m && echo mounted" }))["mount"], "mounted");
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
