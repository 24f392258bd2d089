/** src/host/lock.ts: one holder at a time, of a folder that is there; nothing is written. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { lock } from "../../src/host/lock.ts";
import { failure, temporaryFolder } from "./helpers.ts";

test.serial("one holder at a time, and nothing is made", async (t) => {
  const folder = temporaryFolder(t);
  {
    using _lock = await lock(folder, "box");
    await t.throwsAsync(lock(folder, "box", 50), failure("unavailable", "box is in use by another tskata command for 0.05 s"));
  }
  using _again = await lock(folder, "box", 50);
  t.deepEqual(readdirSync(folder), []);
});

test.serial("a holder that dies has none", async (t) => {
  const folder = temporaryFolder(t);
  const holder = spawn("flock", [folder, "sh", "-c", "echo held; exec sleep 60"], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
  await once(holder.stdout, "data");
  await t.throwsAsync(lock(folder, "box", 50), failure("unavailable", /^box is in use/));
  process.kill(-(holder.pid ?? 0), "SIGKILL");
  using _lock = await lock(folder, "box", 5000);
  t.pass();
});

test.serial("what is not there can't be locked, nor what has gone meanwhile", async (t) => {
  const folder = join(temporaryFolder(t), "gone");
  await t.throwsAsync(lock(folder, "box"), failure("not-found", "box does not exist"));
  mkdirSync(folder);
  const first = await lock(folder, "box");
  const second = lock(folder, "box");
  rmdirSync(folder);
  first[Symbol.dispose]();
  await t.throwsAsync(second, failure("not-found", "box does not exist"));
});

test.serial("the wall clock has no part in how long one waits", async (t) => {
  const folder = temporaryFolder(t);
  using _lock = await lock(folder, "box");
  const { now } = Date;
  t.teardown(() => {
    Date.now = now;
  });
  let calls = 0;
  Date.now = () => now() - (calls++ === 0 ? 0 : 86_400_000);
  await t.throwsAsync(lock(folder, "box", 100), failure("unavailable", /^box is in use/));
});
