/** The guest's wall clock is the host's: from the start, after somebody in the guest has set it, and after the host's has been set. */
import { join } from "node:path";
import test from "ava";
import { native } from "../../src/native.ts";
import { Dialogue } from "../helpers/dialogue.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { hangLimitMs, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("clock");
test.after.always("clean up", async () => await scratch.cleanUp());

const HOUR_S = 3600;
/** What the guest's clock may be wrong by besides what its reading takes: half of what reading it takes the sandbox process, and a slew not yet done. */
const SLACK_MS = 100;

test.before("a container that may set the clock", async (t) => {
  t.timeout(hangLimitMs);
  const program = join(scratch.folder, "clock-program");
  buildFixture("clock", program);
  await scratch.running("clock", (spec: Spec) => {
    const capabilities = ["CAP_SYS_TIME"];
    spec.process.capabilities = { bounding: capabilities, effective: capabilities, permitted: capabilities };
    spec.process.args = ["sleep", "1000000"];
    spec.mounts.push({ destination: "/clock", type: "bind", source: program, options: ["bind", "ro"] });
  });
});

/** How far it is from the host's in milliseconds, as far as can be told: 0 when it may be the same. */
async function difference(guest: Dialogue, question = ""): Promise<number> {
  const before = native().wallClock();
  const read = BigInt(await guest.ask(question));
  const after = native().wallClock();
  if (read < before) return Number(read - before) / 1e6;
  return read > after ? Number(read - after) / 1e6 : 0;
}

async function untilSame(guest: Dialogue): Promise<void> {
  const end = performance.now() + hangLimitMs;
  for (;;) {
    const differs = await difference(guest);
    if (Math.abs(differs) <= SLACK_MS) break;
    if (performance.now() > end) throw new Error(`it still differs by ${differs} ms`);
    await new Promise((wake) => setTimeout(wake, 200));
  }
}

test.serial("it is the host's when a container starts", async (t) => {
  t.timeout(hangLimitMs);
  const guest = new Dialogue(scratch.spawn(["exec", "clock", "/clock"]));
  t.true(Math.abs(await difference(guest)) <= SLACK_MS);
  await guest.end();
});

test.serial("it becomes the host's again when it has been set in the guest", async (t) => {
  t.timeout(3 * hangLimitMs);
  const guest = new Dialogue(scratch.spawn(["exec", "clock", "/clock"]));
  for (const seconds of [HOUR_S, -HOUR_S]) {
    const differs = await difference(guest, String(seconds));
    t.true(Math.abs(differs - seconds * 1000) < 60_000, `set: ${differs} ms`);
    await untilSame(guest);
  }
  await guest.end();
});

// The clock of a machine that others work on is not a test's to set.
const mayBeSet = process.env["TSKATA_TESTBED"] === "1";
if (!mayBeSet) console.log("That the guest's clock follows when the host's is set is tested in the testbed alone: this machine's is not a test's to set.");

(mayBeSet ? test.serial : test.serial.skip)("it follows when the host's is set", async (t) => {
  t.timeout(3 * hangLimitMs);
  const guest = new Dialogue(scratch.spawn(["exec", "clock", "/clock"]));
  const set = (seconds: number): void => native().adjustWallClock(BigInt(seconds) * 1_000_000_000n, true);
  t.teardown(() => guest.end());
  for (const seconds of [HOUR_S, -HOUR_S]) {
    set(seconds);
    await untilSame(guest);
    t.pass();
  }
});
