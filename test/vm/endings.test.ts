/** Guests that end, hang or misbehave instead of starting, beside those of failures.test.ts: each ends within its limit, and nothing stays behind. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { scriptedGuest } from "../../scripts/lib/scripted-guest.ts";
import { testbedKernel } from "../../scripts/testbed/kernel.ts";
import { describe, driver, hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("endings");
test.after.always("clean up", async () => await scratch.cleanUp());

async function refused(t: ExecutionContext, id: string, config: string, message: RegExp): Promise<void> {
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle();
  const outcome = await scratch.tskata(["run", "--bundle", bundle, id], { env: { TSKATA_CONFIG: config } });
  t.is(outcome.code, 1, describe(outcome));
  t.regex(outcome.stderr, message, describe(outcome));
  t.deepEqual(scratch.leftovers(), []);
}

const guest = (name: string, script: string, more = ""): string =>
  scratch.config(name, `[guest]\nimage = ${JSON.stringify(scriptedGuest(scratch.folder, name, script))}\n${more}`);
/** A start that is given up soon. */
const SHORT = "[sandbox]\nstart_timeout_s = 25\n";

test.serial("a triple fault", async (t) => {
  const config = guest("faults", "reboot -f", 'kernel_parameters = ["reboot=t"]\n');
  await refused(t, "faults", config, driver() === "kvm" ? /the guest had a triple fault \(vCPU 0 at 0x[0-9a-f]+\)/ : /the guest restarted or powered off/);
});

test.serial("a guest that spins and never starts its agent", async (t) => {
  await refused(t, "spins", guest("spins", "while :; do :; done", SHORT), /the agent in the guest has not answered in 25 s/);
});

test.serial("a guest that floods its console neither fills the disk nor outlives its limit", async (t) => {
  const config = guest("floods", "yes 0123456789012345678901234567890123456789012345678901234567890123456789", SHORT);
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle();
  let largest = 0;
  const console = join(scratch.root, "floods/pod/console.log");
  const watch = setInterval(() => {
    largest = Math.max(largest, statSync(console, { throwIfNoEntry: false })?.size ?? 0);
  }, 50);
  const outcome = await scratch.tskata(["run", "--bundle", bundle, "floods"], { env: { TSKATA_CONFIG: config } });
  clearInterval(watch);
  t.is(outcome.code, 1, describe(outcome));
  t.regex(outcome.stderr, /not answered in 25 s.*0123456789/s, describe(outcome));
  t.true(largest > 0 && largest <= 1024 * 1024, `console.log had ${largest} bytes`);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("a bzImage boots, here one without drivers for our image", async (t) => {
  const { image, version } = await testbedKernel();
  const config = scratch.config("bzimage", `[guest]\nkernel = ${JSON.stringify(image)}\nkernel_parameters = ["loglevel=7"]\n`);
  let banner: string | undefined;
  const console = join(scratch.root, "bzimage/pod/console.log");
  const watch = setInterval(() => {
    if (existsSync(console)) banner ??= /Linux version (\S+) /.exec(readFileSync(console, "utf8"))?.[1];
  }, 50);
  await refused(t, "bzimage", config, /the guest kernel panicked: VFS: Unable to mount root fs/);
  clearInterval(watch);
  t.is(banner, version);
});
