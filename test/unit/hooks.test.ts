/** src/oci/hooks.ts: hooks run in order with the state on stdin, in their own environment, within their time. */
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { processFacts } from "../../src/base/process.ts";
import { runHooks, runHooksLeniently } from "../../src/oci/hooks.ts";
import type { Hook } from "../../src/oci/spec.ts";
import type { OciState } from "../../src/oci/state.ts";
import { failure, temporaryFolder } from "./helpers.ts";

const state: OciState = { ociVersion: "1.2.0", id: "box", status: "creating", bundle: "/b" };
const shell = (script: string, more: Partial<Hook> = {}): Hook => ({ path: "/bin/sh", args: ["sh", "-c", script], ...more });

test("no hooks is nothing to do", async (t) => {
  await t.notThrowsAsync(runHooks(undefined, state, "/"));
  await t.notThrowsAsync(runHooks([], state, "/"));
});

test("hooks run one after the other, in the folder, with the state on stdin", async (t) => {
  const folder = realpathSync(temporaryFolder(t));
  await runHooks([shell("sleep 0.1; cat > one"), shell("cat one > two; pwd > where")], state, folder);
  t.deepEqual(JSON.parse(readFileSync(join(folder, "one"), "utf8")), state);
  t.deepEqual(JSON.parse(readFileSync(join(folder, "two"), "utf8")), state);
  t.is(readFileSync(join(folder, "where"), "utf8").trim(), folder);
});

test("argv is the hook's own, and so is its environment: nothing of ours", async (t) => {
  const folder = temporaryFolder(t);
  await runHooks(
    [{ path: "/bin/sh", args: ["my-name", "-c", 'echo "$0 $1" > argv; env > env', "zero", "one two"], env: ["A=b=c", "EMPTY=", "BARE"] }],
    state,
    folder,
  );
  t.is(readFileSync(join(folder, "argv"), "utf8"), "zero one two\n");
  const environment = readFileSync(join(folder, "env"), "utf8").split("\n");
  t.true(environment.includes("A=b=c"));
  t.true(environment.includes("EMPTY="));
  t.false(environment.some((line) => line.startsWith("HOME=") || line.startsWith("USER=")));
  await t.notThrowsAsync(runHooks([{ path: "/bin/true" }], state, folder));
});

test("a failing hook stops the list and is told as runc tells it", async (t) => {
  const folder = temporaryFolder(t);
  const failing = shell("echo out; echo err >&2; exit 3");
  await t.throwsAsync(
    runHooks([{ path: "/bin/true" }, failing, shell("touch never")], state, folder),
    failure("launch", "error running hook #1: error running hook: exit status 3, stdout: out\n, stderr: err\n"),
  );
  t.false(existsSync(join(folder, "never")));
  await t.throwsAsync(runHooks([shell("kill -9 $$")], state, folder), failure("launch", /hook #0: error running hook: signal: /));
});

test("a hook that can't be started", async (t) => {
  const folder = temporaryFolder(t);
  await t.throwsAsync(
    runHooks([{ path: "/no/such" }], state, folder),
    failure("launch", "error running hook #0: fork/exec /no/such: no such file or directory"),
  );
  writeFileSync(join(folder, "plain"), "");
  mkdirSync(join(folder, "dir"));
  await t.throwsAsync(runHooks([{ path: join(folder, "plain") }], state, folder), failure("launch", /: permission denied$/));
  await t.throwsAsync(runHooks([{ path: join(folder, "dir") }], state, folder), failure("launch", /: permission denied$/));
  await t.throwsAsync(runHooks([{ path: "/bin/true", args: ["a\0b"] }], state, folder), failure("launch", /^error running hook #0: /));
});

test("leniently: every hook runs, every failure is told", async (t) => {
  const folder = temporaryFolder(t);
  const warnings: string[] = [];
  await runHooksLeniently([{ path: "/no/such" }, shell("touch ran"), shell("exit 1")], state, folder, (warning) => warnings.push(warning));
  t.true(existsSync(join(folder, "ran")));
  t.is(warnings.length, 2);
  t.regex(warnings[0] ?? "", /^error running hook #0: fork\/exec/);
  t.regex(warnings[1] ?? "", /^error running hook #2: error running hook: exit status 1/);
});

test("past its time a hook is ended, its children too", async (t) => {
  const folder = temporaryFolder(t);
  const slow = shell("sleep 60 & echo $! > child; wait", { timeout: 1 });
  await t.throwsAsync(runHooks([slow], state, folder), failure("launch", "error running hook #0: hook ran past specified timeout of 1.0s"));
  const child = Number(readFileSync(join(folder, "child"), "utf8"));
  for (let tries = 0; alive(child) && tries < 200; tries++) await after(10);
  t.false(alive(child));
});

function alive(pid: number): boolean {
  const facts = processFacts(pid);
  return facts !== undefined && facts.state !== "Z";
}

test("a background child that holds the output doesn't keep the hook, nor does its time run on", async (t) => {
  const folder = temporaryFolder(t);
  const background = shell("sleep 0.85; sleep 5 & echo $! > child", { timeout: 1 });
  // It is to end between 0.75 and 1 s: on a busy machine it may need another try.
  const attempt = async (tries: number): Promise<void> => {
    await runHooks([background], state, folder).catch((error: unknown) => (tries > 1 ? attempt(tries - 1) : Promise.reject(error as Error)));
  };
  await t.notThrowsAsync(attempt(4));
  const child = Number(readFileSync(join(folder, "child"), "utf8"));
  t.true(alive(child)); // its parent was in time: nothing ends what it left
  process.kill(child);
});

test("a hook need not read its stdin, however long", async (t) => {
  const long: OciState = { ...state, annotations: { a: "x".repeat(1 << 20) } };
  await t.notThrowsAsync(runHooks([{ path: "/bin/true" }], long, temporaryFolder(t)));
});

test("of endless output the beginning is kept", async (t) => {
  const folder = temporaryFolder(t);
  const error = await t.throwsAsync(runHooks([shell("head -c 300000 /dev/zero | tr '\\0' x; exit 1")], state, folder));
  t.true((error?.message.length ?? 0) < 5000);
});
