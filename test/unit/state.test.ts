/** src/oci/state.ts: the state a hook gets and the one `state` and `list` print. */
import { writeFileSync } from "node:fs";
import test from "ava";
import { OCI_VERSION } from "../../src/base/version.ts";
import { hookState, listedState } from "../../src/oci/state.ts";
import { exitPath } from "../../src/oci/state-file.ts";
import { stateOf, storeState, temporaryFolder } from "./helpers.ts";

test("a hook's state has the runtime-spec's members", (t) => {
  const state = stateOf("/r", { annotations: { a: "b" } });
  t.deepEqual(hookState(state, "created"), {
    ociVersion: OCI_VERSION,
    id: "box",
    status: "created",
    pid: process.pid,
    bundle: "/bundles/box",
    annotations: { a: "b" },
  });
});

test("a hook of a stopped container gets no pid, and no empty annotations", (t) => {
  t.deepEqual(Object.keys(hookState(stateOf("/r"), "stopped")), ["ociVersion", "id", "status", "bundle"]);
  t.deepEqual(Object.keys(hookState(stateOf("/r", { proxy: undefined }), "creating")), ["ociVersion", "id", "status", "bundle"]);
});

test("the listed state of a running container, in runc's order", (t) => {
  const listed = listedState(stateOf("/r", { annotations: { a: "b" } }), "root");
  t.is(
    JSON.stringify(listed),
    JSON.stringify({
      ociVersion: OCI_VERSION,
      id: "box",
      pid: process.pid,
      status: "running",
      bundle: "/bundles/box",
      rootfs: "/bundles/box/rootfs",
      created: "2026-01-02T03:04:05.123456789Z",
      annotations: { a: "b" },
      owner: "root",
    }),
  );
});

test("a stopped container has pid 0 and tells how it ended", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root, { proxy: { pid: 2 ** 22 + 1, startTime: 1 }, annotations: { a: "b" } });
  storeState(root, state);
  t.deepEqual(listedState(state, "").annotations, { a: "b" });
  const exit = { version: 1, waitStatus: 9, oomKilled: true, endedAt: "2026-01-01T00:00:00Z", reason: "the sandbox died" };
  writeFileSync(exitPath(state), JSON.stringify(exit));
  const { pid, status, annotations } = listedState(state, "");
  t.is(pid, 0);
  t.is(status, "stopped");
  t.deepEqual(annotations, { a: "b", "io.tskata.oom-killed": "true", "io.tskata.stop-reason": "the sandbox died" });
  t.false("annotations" in listedState(stateOf(root, { id: "other", proxy: undefined }), ""));
});

test("the end of an earlier run is not told of a running container", (t) => {
  const root = temporaryFolder(t);
  const state = stateOf(root);
  storeState(root, state);
  writeFileSync(exitPath(state), JSON.stringify({ version: 1, waitStatus: 9, oomKilled: true, endedAt: "" }));
  t.false("annotations" in listedState(state, ""));
});
