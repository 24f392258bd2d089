/** src/oci/state-file.ts: a container's own file written, read and found damaged; ids; status from live processes. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { bootId, isAlive, processRef } from "../../src/base/process.ts";
import { sandboxRef } from "../../src/lifecycle/pods.ts";
import { checkId, exitPath, readExit, readState, type StateFile, statusOf, writeState } from "../../src/oci/state-file.ts";
import { failure, runc, stateOf, storeState, temporaryFolder } from "./helpers.ts";

const gone = { pid: 2 ** 22 + 1, startTime: 1 };

test("what is written is read back, and nothing else is left in the folder", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root, { annotations: { a: "b" }, cgroups: ["/x/y", "/x"], terminal: true, pausedFrom: "created" });
  storeState(root, state);
  storeState(root, { ...state, status: "paused" });
  t.deepEqual(readState(root, "box"), { ...state, status: "paused" });
  t.deepEqual(readdirSync(join(root, "box")).sort(), ["pod", "state.json"]);
  t.is(statSync(join(root, "box/state.json")).mode & 0o777, 0o600);
});

test("a state that can't be written says so and leaves no draft", (t) => {
  const root = temporaryFolder(t);
  mkdirSync(join(root, "box/state.json"), { recursive: true });
  t.throws(() => writeState(root, stateOf(root)), failure("internal", /^write .*state\.json$/));
  t.deepEqual(readdirSync(join(root, "box")), ["state.json"]);
});

test("after a reboot the processes and cgroups of a state are nobody's, whoever has their names", (t) => {
  const root = temporaryFolder(t);
  const self = processRef(process.pid);
  if (self === undefined) return t.fail();
  const base = stateOf(root, { cgroups: ["/x/y"], cgroupFolders: ["/x/y", "/z"] });
  const pod = { ...base.pod, sandboxPid: self.pid, sandboxStartTime: self.startTime, cgroups: ["/x/y"] };
  for (const boot of [undefined, bootId()]) {
    storeState(root, { ...base, pod, ...(boot === undefined ? {} : { boot }) });
    t.is(statusOf(readState(root, "box")), "running");
  }
  storeState(root, { ...base, pod, boot: "00000000-0000-0000-0000-000000000000" });
  const state = readState(root, "box");
  t.is(statusOf(state), "stopped");
  t.false(isAlive(state.creator));
  t.false(isAlive(sandboxRef(state)));
  t.deepEqual([state.cgroups, state.cgroupFolders, state.pod.cgroups], [[], [], []]);
});

test("no such container, in runc's words", async (t) => {
  const root = temporaryFolder(t);
  t.throws(() => readState(root, "box"), failure("not-found", "container does not exist"));
  mkdirSync(join(root, "box"));
  t.throws(() => readState(root, "box"), failure("not-found", "container does not exist"));
  t.regex((await runc("state", "tskata-unit-none")).stderr, /msg="container does not exist"/);
});

test("a damaged file is told as such", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root);
  storeState(root, state);
  const file = join(root, "box/state.json");
  const whole = readFileSync(file, "utf8");
  const damaged: [string, RegExp][] = [
    ["", /is damaged: Unexpected end/],
    [whole.slice(0, 40), /is damaged: /],
    ["null", /is damaged: \(document\): expected an object, found null$/],
    [JSON.stringify({ ...state, version: 2 }), /is damaged: version: expected 1, found 2$/],
    [JSON.stringify({ ...state, status: "stopped" }), /is damaged: status: expected "creating", /],
    [JSON.stringify({ ...state, proxy: { pid: -1, startTime: 1 } }), /is damaged: proxy\.pid: /],
    [JSON.stringify({ ...state, pod: undefined }), /is damaged: pod: missing$/],
  ];
  for (const [text, message] of damaged) {
    writeFileSync(file, text);
    t.throws(() => readState(root, "box"), failure("invalid", message));
  }
});

test("any bytes in the file give a state or that error", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root);
  storeState(root, state);
  const keys = Object.keys(state) as (keyof StateFile)[];
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.tuple(fc.constantFrom(...keys), fc.jsonValue()).map(([key, value]) => JSON.stringify({ ...state, [key]: value })),
      ),
      (text) => {
        writeFileSync(join(root, "box/state.json"), text);
        try {
          t.is(readState(root, "box").version, 1);
        } catch (error) {
          t.true(error instanceof TskataError && error.code === "invalid", String(error));
        }
      },
    ),
  );
});

test("ids: runc's rule and runc's words", async (t) => {
  for (const id of ["a", "A-b_c.d+e", "...", "0", "-x", "x".repeat(1024)]) t.notThrows(() => checkId(id), id);
  t.throws(() => checkId(""), failure("invalid", "container id cannot be empty"));
  for (const id of [".", "..", "a/b", "../x", "a b", "é", "a\n", "x".repeat(1025)])
    t.throws(() => checkId(id), failure("invalid", "invalid container ID format"), id);
  t.regex((await runc("state", "")).stderr, /container id cannot be empty/);
  t.regex((await runc("state", "..")).stderr, /invalid container ID format/);
});

test("no id leaves the root folder", (t) => {
  const root = "/run/tskata";
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a./\\]{1,8}$/)), (id) => {
      try {
        checkId(id);
      } catch {
        return;
      }
      t.is(join(root, id), `${root}/${id}`);
    }),
  );
});

test("the status is what the file says as long as the process behind it lives", (t) => {
  const state = stateOf("/r");
  for (const status of ["created", "running", "paused"] as const) {
    t.is(statusOf({ ...state, status }), status);
    t.is(statusOf({ ...state, status, proxy: gone }), "stopped");
    t.is(statusOf({ ...state, status, proxy: undefined }), "stopped");
  }
  t.is(statusOf({ ...state, status: "creating", proxy: gone }), "creating");
  t.is(statusOf({ ...state, status: "creating", creator: gone }), "stopped");
});

test("the exit file of the pod's folder", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root);
  storeState(root, state);
  t.is(exitPath(state), join(root, "box/pod/exit-box.json"));
  t.is(readExit(state), undefined);
  const exit = { version: 1 as const, waitStatus: 9, oomKilled: true, endedAt: "2026-01-01T00:00:00Z" };
  writeFileSync(exitPath(state), JSON.stringify({ ...exit, novel: 1 }));
  t.deepEqual(readExit(state), exit);
  writeFileSync(exitPath(state), JSON.stringify({ ...exit, waitStatus: "9" }));
  t.throws(() => readExit(state), failure("invalid", /exit-box\.json is damaged: waitStatus: expected a number, found "9"$/));
});
