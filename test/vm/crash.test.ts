/** kill -9 of any process of a pod: the caller sees what died, and one `delete --force` or `gc` leaves the host clean. */
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { qemuOf } from "../helpers/processes.ts";
import { describe, driver, hangLimitMs, outcomeOf, Scratch } from "../helpers/tskata.ts";

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

test.serial("a guest that dies in its kernel is told with the console's last lines", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.running("panic", (spec) => {
    spec.linux.maskedPaths = [];
    spec.linux.readonlyPaths = [];
    const all = ["CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_KILL", "CAP_DAC_OVERRIDE"];
    spec.process.capabilities = { bounding: all, effective: all, permitted: all };
    delete spec.linux.seccomp;
  });
  const outcome = await scratch.exec("panic", ["sh", "-c", "echo 1 >/proc/sys/kernel/panic_on_oops; echo c >/proc/sysrq-trigger || exit 3; sleep 100"]);
  // Without sysrq in the guest kernel the write fails and the container lives on; then the VM must be untouched.
  if (outcome.stderr.includes("nonexistent") || outcome.stderr.includes("No such file") || outcome.stderr.includes("can't create")) {
    t.is((await scratch.state("panic")).status, "running");
  } else {
    t.regex(outcome.stderr, /panic|virtual machine/i, describe(outcome));
  }
  await scratch.ok(["delete", "--force", "panic"]);
  t.deepEqual(scratch.leftovers(), []);
});
