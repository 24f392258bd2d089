/** kill -9 of any process of a pod: the caller sees what died, and one `delete --force` or `gc` leaves the host clean. */
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { joinPod } from "../helpers/pod.ts";
import { qemuOf } from "../helpers/processes.ts";
import { describe, driver, hangLimitMs, outcomeOf, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("crash");
test.after.always("clean up", async () => await scratch.cleanUp());

/** Pids of this scratch's processes whose command line has `word`. */
function pidsOf(word: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        const status = readFileSync(`/proc/${pid}/environ`, "utf8");
        return command.includes(word) && (command.includes(scratch.root) || status.includes(scratch.root));
      } catch {
        return false; // gone meanwhile
      }
    });
}

const victims: { name: string; pid: (id: string) => number | Promise<number> }[] = [
  { name: "sandbox", pid: (id) => scratch.pod(id).sandboxPid },
  // The kvm driver's machine is in the sandbox process.
  ...(driver() === "kvm" ? [] : [{ name: "qemu", pid: (id: string) => qemuOf(scratch.pod(id).sandboxPid) }]),
  { name: "proxy", pid: async (id) => (await scratch.state(id)).pid },
];

for (const victim of victims) {
  for (const remedy of ["delete", "gc"]) {
    test.serial(`kill -9 of the ${victim.name}, then ${remedy}`, async (t: ExecutionContext) => {
      t.timeout(hangLimitMs * 2);
      const id = `${victim.name}-${remedy}`;
      await scratch.running(id);
      const attached = scratch.spawn(["exec", id, "sh", "-c", "echo begun; sleep 100000"]);
      const ended = outcomeOf(attached, {});
      await once(attached.stdout ?? attached, "data");
      process.kill(await victim.pid(id), "SIGKILL");
      const outcome = await ended;
      t.not(outcome.code, 0, describe(outcome));
      t.is(outcome.stdout, "begun\n", describe(outcome));
      await scratch.until(id, "stopped");
      if (victim.name !== "proxy") {
        t.regex(outcome.stderr, victim.name === "qemu" ? /qemu|virtual machine/i : /sandbox/i, describe(outcome));
        const after = await scratch.exec(id, ["true"]);
        t.not(after.code, 0);
      }
      if (remedy === "delete") await scratch.ok(["delete", "--force", id]);
      else await scratch.ok(["gc"]);
      t.deepEqual(scratch.leftovers(), []);
      t.deepEqual(pidsOf("qemu-system"), []);
    });
  }
}

/** As privileged as Docker's `--privileged`: nothing of /proc is masked or read-only. */
function privileged(spec: Spec): void {
  spec.linux.maskedPaths = [];
  spec.linux.readonlyPaths = [];
  const all = ["CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_RESOURCE", "CAP_KILL", "CAP_DAC_OVERRIDE"];
  spec.process.capabilities = { bounding: all, effective: all, permitted: all };
  delete spec.linux.seccomp;
}

test.serial("the kernel of a running guest panics: all who wait are told, with the console's last lines, and so is who asks later", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    privileged(spec);
    spec.annotations = { "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "panic" };
    spec.process.args = ["sh", "-c", "echo up; sleep 100000"];
    spec.linux.resources = { memory: { limit: 32 * 2 ** 20 } };
  });
  const log = join(scratch.folder, "run.json");
  const running = scratch.spawn(["--log", log, "--log-format", "json", "run", "--keep", "--bundle", bundle, "panic"]);
  const ran = outcomeOf(running, {});
  await once(running.stdout ?? running, "data");
  const events = outcomeOf(scratch.spawn(["events", "panic"]), {});
  const joined = await joinPod(scratch, "panic");
  await scratch.running("before", (spec) => {
    joined(spec);
    spec.process.args = ["true"];
  });
  await scratch.until("before", "stopped");
  // 2: also when a cgroup's limit is what is used up.
  const fatal = "echo 2 >/proc/sys/vm/panic_on_oom || exit 3; echo begun; tail /dev/zero";
  const executed = await scratch.exec("panic", ["sh", "-c", fatal]);

  const reason = /^the virtual machine died: the guest ran out of memory: the guest kernel panicked: Out of memory: compulsory panic_on_oom is enabled\n/;
  const check = (text: string): void => {
    t.regex(text, reason, text);
    t.regex(
      text,
      /\n {2}likely cause: .*\n {2}what to do: .*\n {2}more: .*"guest-out-of-memory"\n {2}virtual machine: the guest (?:restarted or powered off|had a triple fault.*); driver /,
      text,
    );
    t.regex(
      text,
      /\n {2}last lines of the guest console:\n(?: {4}.*\n)* {4}.*Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled$/,
      text,
    );
  };
  t.is(executed.code, 137, describe(executed));
  t.is(executed.stdout, "begun\n", describe(executed));
  // Without --log: the first line as runc writes it, what explains it below.
  const [, first = "", rest = ""] = /^time="[^"]+" level=error msg="exec in container panic was lost: (.*?)"\n(.*)\n$/s.exec(executed.stderr) ?? [];
  check(`${first}\n${rest}`);
  const ended = await ran;
  t.is(ended.code, 137, describe(ended));
  const { level, msg = "" } = JSON.parse(readFileSync(log, "utf8").trimEnd().split("\n").at(-1) ?? "") as { level?: string; msg?: string };
  t.is(level, "error");
  t.true(msg.startsWith("container panic was lost: "), msg);
  check(msg.replace("container panic was lost: ", ""));
  const { status, annotations } = await scratch.state("panic");
  t.is(status, "stopped");
  check(annotations?.["io.tskata.stop-reason"] ?? "");
  t.is((await scratch.state("before")).annotations?.["io.tskata.stop-reason"], undefined, "its end was its own");
  const followed = await events;
  t.is(followed.code, 0, describe(followed));
  t.regex(await scratch.ok(["logs", "--console", "panic"]), /Kernel panic - not syncing: Out of memory: compulsory/);
  const after = await scratch.exec("panic", ["true"]);
  t.regex(after.stderr, /cannot exec in a stopped container/, describe(after));
  for (const id of ["before", "panic"]) await scratch.ok(["delete", id]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("a container that may write all of /proc has no sysrq to stop its pod with", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.running("sysrq", privileged);
  const written = await scratch.exec("sysrq", ["sh", "-c", "echo 1 >/proc/sys/kernel/panic_on_oops && echo may; echo c >/proc/sysrq-trigger"]);
  t.is(written.stdout, "may\n", describe(written));
  t.not(written.code, 0, describe(written));
  t.regex(written.stderr, /can't create \/proc\/sysrq-trigger: nonexistent directory/, describe(written));
  t.is(await scratch.sh("sysrq", "ls /proc/sys/kernel/sysrq 2>&1 || echo none"), "ls: /proc/sys/kernel/sysrq: No such file or directory\nnone");
  t.is((await scratch.state("sysrq")).status, "running");
  await scratch.ok(["delete", "--force", "sysrq"]);
  t.deepEqual(scratch.leftovers(), []);
});
