/** src/lifecycle/pods.ts, collect.ts and remove.ts on hand-made state folders: no machine runs. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import type { TskataError } from "../../src/base/errors.ts";
import { logTail } from "../../src/base/log-tail.ts";
import { type ProcessRef, processRef } from "../../src/base/process.ts";
import { type Collected, collect } from "../../src/lifecycle/collect.ts";
import { containerIds, findByProxy, findPodByNamespaces, findPodOwner, podMembers, readStates } from "../../src/lifecycle/pods.ts";
import { processesIn, removeContainer } from "../../src/lifecycle/remove.ts";
import type { StateFile } from "../../src/oci/state-file.ts";
import { failure, stateOf, storeState, temporaryFolder } from "./helpers.ts";

const dead = { pid: 2 ** 22 - 1, startTime: 1 };
const self = processRef(process.pid);

function add(root: string, id: string, changes: Partial<StateFile> = {}): StateFile {
  const state = stateOf(root, { id, ...changes });
  storeState(root, state);
  return state;
}

function sleeper(t: ExecutionContext, cwd: string): ChildProcess {
  const child = spawn("sleep", ["60"], { cwd });
  t.teardown(() => child.kill("SIGKILL"));
  return child;
}

async function remove(root: string, id: string, force = false): Promise<string[]> {
  const warnings: string[] = [];
  await removeContainer({ root, id, force, warn: (message) => warnings.push(message) });
  return warnings;
}

async function collected(root: string, dryRun: boolean): Promise<string[]> {
  const found: Collected[] = [];
  await collect(
    root,
    dryRun,
    (one) => found.push(one),
    () => {},
  );
  return found.map(({ what, name, why }) => `${what} ${name}: ${why.replace(/:.*/, "")}`);
}

test("pods: members, owner, proxies", (t) => {
  const root = temporaryFolder(t);
  const pod = { ...add(root, "first").pod, sandboxPid: self?.pid, sandboxStartTime: self?.startTime };
  add(root, "first", { pod, annotations: { "io.kubernetes.cri-o.SandboxID": "podman-id" } });
  add(root, "second", { pod, proxy: dead });
  add(root, "other");
  mkdirSync(join(root, "empty"));
  mkdirSync(join(root, "broken"));
  writeFileSync(join(root, "broken/state.json"), "{");
  const bad: string[] = [];
  t.deepEqual(containerIds(root), ["broken", "empty", "first", "other", "second"]);
  t.deepEqual(containerIds(join(root, "none")), []);
  t.deepEqual(
    readStates(root, (id) => bad.push(id)).map(({ id }) => id),
    ["first", "other", "second"],
  );
  t.deepEqual(bad, ["broken"]);
  t.deepEqual(
    podMembers(root, pod.folder).map(({ id }) => id),
    ["first", "second"],
  );
  t.is(findPodOwner(root, "first").id, "first");
  t.is(findPodOwner(root, "podman-id").id, "first");
  t.throws(() => findPodOwner(root, "none"), failure("not-found", /does not exist$/));
  t.throws(() => findPodOwner(root, "other"), failure("unavailable", /no running virtual machine$/));
  t.is(findByProxy(root, pod.folder, process.pid), "first");
  t.is(findByProxy(root, pod.folder, dead.pid), undefined);
});

test("pods: the one whose container's namespace is joined; none of two machines, of a stopped container, of a stranger", (t) => {
  const root = temporaryFolder(t);
  const [one, two] = [sleeper(t, "/"), sleeper(t, "/")].map(({ pid = 0 }) => processRef(pid)) as [ProcessRef, ProcessRef];
  add(root, "one", { proxy: one });
  add(root, "two", { proxy: two });
  add(root, "stopped", { proxy: dead });
  const find = (...pids: number[]): string | undefined =>
    findPodByNamespaces(
      root,
      pids.map((pid, index) => ({ type: index === 0 ? "pid" : "ipc", pid })),
    )?.id;
  t.is(find(), undefined);
  t.is(find(1), undefined);
  t.is(find(dead.pid), undefined);
  t.is(find(one.pid), "one");
  t.is(find(1, two.pid, two.pid), "two");
  const message = "joining the pid namespace of one and the ipc namespace of two is not supported: they run in two virtual machines";
  t.throws(() => find(one.pid, two.pid), failure("unsupported", message));
});

test("a log's tail holds no control characters", (t) => {
  const file = join(temporaryFolder(t), "log");
  writeFileSync(file, `${"old\n".repeat(20)}\x1b[31mred\x07\r\nlast\n\n`);
  t.is(logTail(file, 2), "[31mred\nlast");
  t.is(logTail("/no/such"), "");
});

test("remove: a stopped container goes, one that runs needs force, one that is not there is an error without it", async (t) => {
  const root = temporaryFolder(t);
  add(root, "stopped", { proxy: dead });
  t.deepEqual(await remove(root, "stopped"), []);
  t.false(existsSync(join(root, "stopped")));
  add(root, "running");
  await t.throwsAsync(remove(root, "running"), failure("wrong-state", "cannot delete container running that is not stopped: running"));
  await t.throwsAsync(remove(root, "none"), failure("not-found", "container does not exist"));
  t.deepEqual(await remove(root, "none", true), []);
  await t.throwsAsync(remove(root, "../x", true), failure("invalid", "invalid container ID format"));
});

test("remove: the first container's pod folder stays while others use it, and goes with the last", async (t) => {
  const root = temporaryFolder(t);
  const { pod } = add(root, "first", { proxy: dead });
  add(root, "second", { pod, proxy: dead });
  await remove(root, "first");
  t.true(existsSync(pod.folder));
  t.false(existsSync(join(root, "first/state.json")));
  await remove(root, "second");
  t.deepEqual(containerIds(root), []);
});

test("remove: processes left in the pod's folder and cgroup end, others live", async (t) => {
  const root = temporaryFolder(t);
  const { pod } = add(root, "box", { proxy: dead });
  const [inside, outside] = [sleeper(t, pod.folder), sleeper(t, root)];
  while (!processesIn(pod.folder).includes(inside.pid ?? 0)) await after(5);
  const ended = new Promise((done) => inside.once("exit", (_, signal) => done(signal)));
  await remove(root, "box");
  t.is(await ended, "SIGKILL");
  t.is(outside.exitCode, null);
});

test("remove: a damaged state needs force", async (t) => {
  const root = temporaryFolder(t);
  mkdirSync(join(root, "broken/pod"), { recursive: true });
  writeFileSync(join(root, "broken/state.json"), "{");
  await t.throwsAsync(remove(root, "broken"), failure("invalid", /is damaged/));
  t.deepEqual(await remove(root, "broken", true), []);
  t.deepEqual(containerIds(root), []);
});

test("collect: tells in a dry run, removes otherwise, leaves what is healthy", async (t) => {
  const root = temporaryFolder(t);
  const alive = { sandboxPid: self?.pid, sandboxStartTime: self?.startTime };
  const healthy = stateOf(root, { id: "healthy" });
  add(root, "healthy", { pod: { ...healthy.pod, ...alive } });
  add(root, "making", { status: "creating" });
  add(root, "cut", { status: "creating", creator: dead, proxy: undefined });
  add(root, "lost", { proxy: dead });
  const expected = ["container cut: its create was cut short", "container lost: its virtual machine is gone"];
  t.deepEqual(await collected(root, true), expected);
  t.deepEqual(containerIds(root), ["cut", "healthy", "lost", "making"]);
  t.deepEqual(await collected(root, false), expected);
  t.deepEqual(containerIds(root), ["healthy", "making"]);
});

test("collect: a create between its folder and its state is left alone, one that has died there is not", async (t) => {
  const root = temporaryFolder(t);
  for (const id of ["making", "cut"]) mkdirSync(join(root, id));
  setTimeout(() => add(root, "making", { status: "creating" }), 300);
  t.deepEqual(await collected(root, false), ["container cut: its state can't be read"]);
  t.deepEqual(containerIds(root), ["making"]);
});

test("collect: a process that works in a pod's folder which is gone is told, and ended unless that is a dry run", async (t) => {
  const root = temporaryFolder(t);
  const [pod, folder] = [join(root, "gone/pod"), join(root, "gone/other")];
  for (const one of [pod, folder]) mkdirSync(one, { recursive: true });
  const [stray, elsewhere] = [sleeper(t, pod), sleeper(t, folder)];
  while (!processesIn(pod).includes(stray.pid ?? 0) || !processesIn(folder).includes(elsewhere.pid ?? 0)) await after(5);
  t.deepEqual(await collected(root, true), ["container gone: its state can't be read"], "its folder is there: not by this way");
  rmSync(join(root, "gone"), { recursive: true });
  const expected = [`process ${stray.pid}: works in a pod's folder that is gone`];
  t.deepEqual(await collected(root, true), expected);
  t.is(stray.exitCode, null);
  const ended = new Promise((done) => stray.once("exit", (_, signal) => done(signal)));
  t.deepEqual(await collected(root, false), expected);
  t.is(await ended, "SIGKILL");
  t.deepEqual([elsewhere.exitCode, elsewhere.signalCode], [null, null]);
  t.deepEqual(await collected(root, false), []);
});

test("remove: several at once, each by force, all end well and say nothing", async (t) => {
  const root = temporaryFolder(t);
  for (let round = 0; round < 10; round++) {
    add(root, "box", { proxy: dead });
    t.deepEqual((await Promise.all(Array.from({ length: 5 }, () => remove(root, "box", true)))).flat(), []);
    t.deepEqual(containerIds(root), []);
  }
});

test("remove: without force, the one that comes second is told that there is no such container", async (t) => {
  const root = temporaryFolder(t);
  add(root, "box", { proxy: dead });
  const results = await Promise.allSettled([remove(root, "box"), remove(root, "box"), remove(root, "box")]);
  const refused = results.flatMap((result) => (result.status === "rejected" ? [result.reason as TskataError] : []));
  t.is(refused.length, 2);
  for (const { code, message } of refused) t.deepEqual([code, message], ["not-found", "container does not exist"]);
});
