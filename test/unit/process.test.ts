/** src/base/process.ts: processes named by pid and start time, their ends, and pids used again. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { allPids, isAlive, isEnding, processFacts, processRef, signalProcess, waitForEnd } from "../../src/base/process.ts";
import { repository, runProgram, temporaryFolder } from "./helpers.ts";

const NO_PID = 2 ** 22 + 1; // above the kernel's own limit of pids

test("the facts of this process are the kernel's", (t) => {
  const facts = processFacts(process.pid);
  t.is(facts?.pid, process.pid);
  t.is(facts?.parent, process.ppid);
  t.regex(facts?.state ?? "", /^[RSD]$/);
  t.true((facts?.startTime ?? 0) > 0);
  t.deepEqual(processRef(process.pid), { pid: process.pid, startTime: facts?.startTime ?? 0 });
  t.true(allPids().includes(process.pid));
});

test("there are no facts of a pid without a process", (t) => {
  t.is(processFacts(NO_PID), undefined);
  t.is(processRef(NO_PID), undefined);
  t.false(isAlive(undefined));
  t.false(isAlive({ pid: NO_PID, startTime: 1 }));
});

test("a process is ending from its exit on, reaped or not", async (t) => {
  const child = spawn("sleep", ["60"]);
  const ref = processRef(child.pid ?? 0) ?? { pid: NO_PID, startTime: 0 };
  t.false(isEnding(ref));
  child.kill("SIGKILL");
  while (!isEnding(ref)) await after(1);
  t.true(await waitForEnd(ref, 5000));
  t.true(isEnding(ref));
});

test.serial("a wait's end does not depend on the wall clock", async (t) => {
  const self = processRef(process.pid);
  if (self === undefined) return t.fail();
  const { now } = Date;
  t.teardown(() => {
    Date.now = now;
  });
  const start = performance.now();
  for (const day of [86_400_000, -86_400_000]) {
    let calls = 0;
    Date.now = () => now() + (calls++ === 0 ? 0 : day);
    t.false(await waitForEnd(self, 200));
  }
  t.true(performance.now() - start >= 400 && performance.now() - start < 5000);
});

test("a process has the same start time in every time namespace", async (t) => {
  const script = `import { processRef } from ${JSON.stringify(join(repository, "src/base/process.ts"))}; console.log(processRef(${process.pid})?.startTime)`;
  const own = processRef(process.pid)?.startTime;
  const { code, stdout, stderr } = await runProgram("unshare", [
    "--time",
    "--boottime",
    "100000",
    "--fork",
    process.execPath,
    "--input-type=module",
    "-e",
    script,
  ]);
  t.is(code, 0, stderr);
  t.is(Number(stdout), own ?? 0);
});

test("a pid with another start time is another process", (t) => {
  const self = processRef(process.pid);
  t.true(isAlive(self));
  const other = { pid: process.pid, startTime: (self?.startTime ?? 0) - 1 };
  t.false(isAlive(other));
  t.false(signalProcess(other, "SIGKILL")); // or this test would end here
});

test("a command name with spaces and parentheses doesn't move the fields", async (t) => {
  const program = join(temporaryFolder(t), "a) R 1 (b");
  copyFileSync("/bin/sleep", program);
  chmodSync(program, 0o755);
  const child = spawn(program, ["30"], { stdio: "ignore", detached: true });
  t.teardown(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  const facts = processFacts(child.pid ?? 0);
  t.is(facts?.parent, process.pid);
  t.is(facts?.session, child.pid);
});

test("a signal reaches the process, and its end is waited for", async (t) => {
  const child = spawn("/bin/sleep", ["30"], { stdio: "ignore" });
  await once(child, "spawn");
  const ref = processRef(child.pid ?? 0);
  if (ref === undefined) return t.fail("the child is not there");
  t.false(await waitForEnd(ref, 20));
  t.true(signalProcess(ref, 0));
  t.true(signalProcess(ref, "SIGKILL"));
  t.true(await waitForEnd(ref, 10_000));
  t.false(isAlive(ref));
  t.false(signalProcess(ref, "SIGTERM"));
});

test("a zombie has ended", async (t) => {
  // The shell becomes sleep, which never waits for the child it was left.
  const parent = spawn("/bin/sh", ["-c", "sleep 0.1 & echo $!; exec sleep 30"], { stdio: ["ignore", "pipe", "ignore"] });
  t.teardown(() => parent.kill("SIGKILL"));
  const [line] = (await once(parent.stdout, "data")) as [Buffer];
  const pid = Number(line.toString());
  for (let tries = 0; processFacts(pid)?.state !== "Z" && tries < 500; tries++) await after(10);
  const ref = processRef(pid);
  t.not(ref, undefined);
  t.false(isAlive(ref));
});
