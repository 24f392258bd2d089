/** Guests that have timer interrupts all the time, and beside each other: each goes on, and sees its seconds pass. */
import { join } from "node:path";
import test from "ava";
import { buildFixture } from "../helpers/fixtures.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";
import { until } from "../helpers/waits.ts";

const scratch = new Scratch("timers");
test.after.always("clean up", async () => await scratch.cleanUp());

const PODS = ["one", "two", "three"];
const SECONDS = 40;

test("three pods whose processes nap for microseconds", async (t) => {
  t.timeout(3 * hangLimitMs);
  const program = join(scratch.folder, "naps-program");
  buildFixture("naps", program);
  const run = async (id: string): Promise<unknown> =>
    await scratch.running(id, (spec) => {
      spec.process.args = ["/naps"];
      spec.mounts.push({ destination: "/naps", type: "bind", source: program, options: ["bind", "ro"] });
    });
  await Promise.all(PODS.map(run));
  for (const id of PODS) {
    await until(() => scratch.output(id).includes(`second ${SECONDS}\n`), `${SECONDS} seconds in pod ${id}`);
    t.is((await scratch.state(id)).status, "running", id);
  }
});
