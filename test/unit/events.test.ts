/** src/sandbox/events.ts: a pod's events for those who ask for what comes after a number. */
import test from "ava";
import { EventLog } from "../../src/sandbox/events.ts";

const never = new AbortController().signal;

test("events after a number, of one container or all", async (t) => {
  const log = new EventLog();
  log.add("exit", "a", { status: 1 });
  log.add("oom", "b", {});
  log.add("exit", "b", { status: 2 });
  const all = await log.after(0n, "", never);
  t.deepEqual(
    all.map(({ sequence, type, containerId, data }) => [sequence, type, containerId, Buffer.from(data).toString()]),
    [
      [1n, "exit", "a", '{"status":1}'],
      [2n, "oom", "b", "{}"],
      [3n, "exit", "b", '{"status":2}'],
    ],
  );
  t.deepEqual(
    (await log.after(1n, "b", never)).map(({ sequence }) => sequence),
    [2n, 3n],
  );
});

test("who asks for what is not there yet waits for it, and for nobody else's", async (t) => {
  const log = new EventLog();
  let told = false;
  const waiting = log.after(0n, "b", never).then((events) => {
    told = true;
    return events;
  });
  log.add("exit", "a", {});
  await new Promise((turn) => setImmediate(turn));
  t.false(told);
  log.add("exit", "b", {});
  t.deepEqual(
    (await waiting).map(({ sequence }) => sequence),
    [2n],
  );
});

test("who has gone gets none", async (t) => {
  const log = new EventLog();
  const gone = new AbortController();
  const waiting = [log.after(0n, "", gone.signal), log.after(0n, "", never)];
  gone.abort();
  t.deepEqual(await waiting[0], []);
  t.deepEqual(await log.after(0n, "", gone.signal), []);
  log.add("exit", "a", {});
  t.is((await waiting[1])?.length, 1);
});

test("the oldest are forgotten, numbers go on", async (t) => {
  const log = new EventLog();
  for (let count = 0; count < 1500; count++) log.add("x", "a", {});
  const kept = await log.after(0n, "", never);
  t.deepEqual([kept.length, kept[0]?.sequence, kept.at(-1)?.sequence], [1000, 501n, 1500n]);
});
