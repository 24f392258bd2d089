/** Two containers of one pod, by the CRI's annotations: one VM, their own or shared namespaces, each its own end. */
import test from "ava";
import { joinPod, startPod } from "../helpers/pod.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("pod");
test.after.always("clean up", async () => await scratch.cleanUp());

test.before("a pod sandbox container", async (t) => {
  t.timeout(hangLimitMs);
  await startPod(scratch, "pause", (spec) => {
    spec.hostname = "the-pod";
  });
});

/** A container that joins the pod; `shared` are the namespace types it takes from the pause container. */
async function join(id: string, shared: string[]): Promise<void> {
  await scratch.running(id, await joinPod(scratch, "pause", shared));
}

test.serial("containers of a pod share the VM and have their own namespaces", async (t) => {
  t.timeout(hangLimitMs * 2);
  await join("own", []);
  t.is(await scratch.sh("own", "cat /proc/sys/kernel/random/boot_id"), await scratch.sh("pause", "cat /proc/sys/kernel/random/boot_id"));
  for (const type of ["pid", "ipc", "uts", "mnt", "cgroup"]) {
    t.not(await scratch.sh("own", `readlink /proc/1/ns/${type}`), await scratch.sh("pause", `readlink /proc/1/ns/${type}`), type);
  }
  t.is(await scratch.sh("own", "readlink /proc/self/ns/net"), await scratch.sh("pause", "readlink /proc/self/ns/net"));
});

test.serial("where asked, pid, ipc and uts namespaces are shared", async (t) => {
  t.timeout(hangLimitMs * 2);
  await join("shared", ["pid", "ipc", "uts"]);
  for (const type of ["pid", "ipc", "uts"]) {
    t.is(await scratch.sh("shared", `readlink /proc/self/ns/${type}`), await scratch.sh("pause", `readlink /proc/self/ns/${type}`), type);
  }
  t.is(await scratch.sh("shared", "hostname"), "the-pod");
  const init = await scratch.sh("shared", "tr '\\0' ' ' </proc/1/cmdline");
  t.regex(init, /sleep 100000/);
});

test.serial("one's end leaves the others", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.ok(["kill", "shared", "KILL"]);
  await scratch.until("shared", "stopped");
  await scratch.ok(["delete", "shared"]);
  t.is((await scratch.state("own")).status, "running");
  t.is(await scratch.sh("own", "echo alive"), "alive");
  await scratch.ok(["delete", "--force", "own"]);
  t.is(await scratch.sh("pause", "echo alive"), "alive");
  await scratch.ok(["kill", "--all", "pause", "9"]);
  await scratch.until("pause", "stopped");
  await scratch.ok(["delete", "pause"]);
  t.deepEqual(scratch.leftovers(), []);
});
