/** native/launcher, run here instead of in a guest: from a config.json's plan to the program, in namespaces of its own. */
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text as readText } from "node:stream/consumers";
import test, { type ExecutionContext } from "ava";
import { busyboxRootfs } from "../../scripts/lib/busybox.ts";
import type { Process, Spec } from "../../src/oci/spec.ts";
import type { End, Launch } from "../helpers/launches.ts";
import { repository, temporaryFolder } from "./helpers.ts";

/** Runs launches one after the other as the agent does. */
async function launches(...list: Launch[]): Promise<End[]> {
  const program = join(repository, "test/helpers/launches.ts");
  const child = spawn("unshare", ["--pid", "--fork", "--kill-child", "--mount-proc", process.execPath, program], { stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.end(JSON.stringify(list));
  const [stdout, stderr] = await Promise.all([readText(child.stdout), readText(child.stderr)]);
  if (stdout === "") throw new Error(`${program}: ${stderr}`);
  return JSON.parse(stdout) as End[];
}

/** A config of busybox's root filesystem and a shell line. */
function config(folder: string, line: string, change: (spec: Spec) => void = () => {}): Launch {
  const rootfs = join(folder, "rootfs");
  busyboxRootfs(rootfs);
  mkdirSync(join(folder, "run"), { recursive: true });
  const spec: Spec = {
    ociVersion: "1.2.0",
    root: { path: rootfs },
    process: { cwd: "/", args: ["sh", "-c", line], env: ["PATH=/bin"] },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
    ],
    linux: { namespaces: [{ type: "mount" }, { type: "pid" }, { type: "uts" }, { type: "ipc" }] },
  };
  change(spec);
  return { spec, output: join(folder, "output") };
}

type Change = (spec: Spec) => void;

/** Each in a folder of its own. */
async function runs(t: ExecutionContext, ...list: [line: string, change?: Change][]): Promise<End[]> {
  return await launches(...list.map(([line, change]) => config(temporaryFolder(t), line, change)));
}

const hooks = (...list: { script: string; env?: string[]; timeout?: number }[]) => ({
  startContainer: list.map(({ script, ...more }) => ({ path: "/bin/sh", args: ["sh", "-c", script], ...more })),
});

const withHooks =
  (...list: Parameters<typeof hooks>): Change =>
  (spec) => {
    spec.hooks = hooks(...list);
  };

test("the program's output and status", async (t) => {
  t.deepEqual(await runs(t, ["echo said; exit 7"], ["kill -9 $$"]), [
    { printed: "said\n", waitStatus: 7 << 8 },
    { printed: "", waitStatus: 0 },
  ]);
});

test("names, folder, umask, groups and what is read-only, masked and mounted", async (t) => {
  const line = "hostname; pwd; umask; id -G; cat /secret; ls /hidden; touch /kept/x; touch /y; stat -f -c %T /m; stat -c %a /m";
  const [end] = await runs(t, [
    line,
    (spec) => {
      const rootfs = spec.root?.path ?? "";
      for (const name of ["hidden", "kept"]) mkdirSync(join(rootfs, name), { recursive: true });
      for (const name of ["secret", "hidden/file", "kept/x"]) writeFileSync(join(rootfs, name), "there");
      spec.hostname = "own";
      spec.root = { path: rootfs, readonly: true };
      spec.mounts?.push({ destination: "/m", type: "tmpfs", source: "m", options: ["mode=711"] });
      Object.assign(spec.process ?? {}, { cwd: "/made/here", user: { uid: 0, gid: 5, additionalGids: [6, 7], umask: 0o27 } });
      Object.assign(spec.linux ?? {}, { maskedPaths: ["/secret", "/hidden", "/not/there"], readonlyPaths: ["/kept", "/not/there"] });
    },
  ]);
  t.is(end?.error, undefined);
  t.deepEqual(end?.printed.split("\n").slice(0, -1), [
    ...["own", "/made/here", "0027", "5 6 7"],
    "touch: /kept/x: Read-only file system",
    "touch: /y: Read-only file system",
    ...["tmpfs", "711"],
  ]);
});

test("startContainer hooks: in order, with their own environment and the state; what they print is not the program's", async (t) => {
  const first = { script: "cat >/state; env >/environment; echo one >/order; echo noise", env: ["ONLY=this"] };
  const [end] = await runs(t, [
    "cat /state; echo; cat /environment /order",
    (spec) => {
      spec.annotations = { a: "b" };
      spec.hooks = hooks(first, { script: "echo two >>/order; echo noise >&2" });
    },
  ]);
  t.is(end?.waitStatus, 0, end?.error);
  const [state = "", ...rest] = (end?.printed ?? "").trim().split("\n");
  t.deepEqual(JSON.parse(state), { ociVersion: "1.2.0", id: "box", status: "created", pid: 1, bundle: "/the/bundle", annotations: { a: "b" } });
  const bySh = /^(PATH|PWD|SHLVL)=/; // a shell has these by itself
  t.deepEqual(
    rest.filter((line) => !bySh.test(line)),
    ["ONLY=this", "one", "two"],
  );
});

test("a startContainer hook that fails is told with what it printed; no later one and no program runs", async (t) => {
  const ends = await runs(
    t,
    ["echo ran", withHooks({ script: "true" }, { script: "echo out; echo err >&2; exit 3" }, { script: "echo late >/proc/1/fd/1" })],
    ["echo ran", withHooks({ script: "kill -9 $$" })],
    ["echo ran", (spec) => void Object.assign(spec, { hooks: { startContainer: [{ path: "/no/such" }] } })],
    ["echo ran", withHooks({ script: "yes | head -c 1000000; exit 1" })],
  );
  const outcomes = [
    "#1 (/bin/sh): exit status 3, stdout: out\n, stderr: err\n",
    "#0 (/bin/sh): signal: 9, stdout: , stderr: ",
    "#0 (/no/such): exit status 127, stdout: , stderr: No such file or directory",
    `#0 (/bin/sh): exit status 1, stdout: ${"y\n".repeat(512)}, stderr: `,
  ];
  t.deepEqual(
    ends,
    outcomes.map((outcome) => ({ error: `error running startContainer hook ${outcome}`, printed: "" })),
  );
});

test("past its time a startContainer hook is ended; one that leaves a child in time is not held up by it", async (t) => {
  const started = Date.now();
  const [slow, leaves] = await runs(
    t,
    ["echo ran", withHooks({ script: "sleep 60 & wait", timeout: 1 })],
    ["pidof sleep >/dev/null && echo ran", withHooks({ script: "sleep 60 & until pidof sleep >/dev/null; do :; done", timeout: 30 })],
  );
  t.is(slow?.error, "error running startContainer hook #0 (/bin/sh): hook ran past specified timeout of 1.0s");
  t.deepEqual(leaves, { printed: "ran\n", waitStatus: 0 });
  t.true(Date.now() - started < 30_000);
});

test("what is exec'ed does not wait for its release: its status, also when it is over at once, or why it could not be", async (t) => {
  const exec = (args: string[]): Launch => ({
    spec: { ociVersion: "1.2.0", linux: {} },
    output: join(temporaryFolder(t), "output"),
    exec: { cwd: "/", env: ["PATH=/bin:/usr/bin"], args },
  });
  const plain = join(temporaryFolder(t), "plain");
  writeFileSync(plain, "no program", { mode: 0o755 });
  const ends = await launches(exec(["sh", "-c", "echo ran; exit 3"]), exec(["true"]), exec(["no-such-program"]), exec([plain]));
  t.deepEqual(ends, [
    { printed: "ran\n", waitStatus: 3 << 8 },
    { printed: "", waitStatus: 0 },
    { printed: "", error: 'exec: "no-such-program": executable file not found in $PATH' },
    { printed: "", error: `exec ${plain}: exec format error` },
  ]);
});

test("execCPUAffinity: the CPUs named, the later of the two, or the field's name", async (t) => {
  const exec = (execCPUAffinity: Process["execCPUAffinity"]): Launch => ({
    spec: { ociVersion: "1.2.0", linux: {} },
    output: join(temporaryFolder(t), "output"),
    exec: { cwd: "/", env: ["PATH=/bin:/usr/bin"], args: ["grep", "Cpus_allowed_list", "/proc/self/status"], execCPUAffinity },
  });
  const ends = await launches(exec({ initial: "0" }), exec({ initial: "1", final: "0" }), exec({ initial: "1000" }), exec({ initial: "0", final: "999-1001" }));
  t.deepEqual(ends, [
    { printed: "Cpus_allowed_list:\t0\n", waitStatus: 0 },
    { printed: "Cpus_allowed_list:\t0\n", waitStatus: 0 },
    { printed: "", error: "set process.execCPUAffinity.initial: EINVAL" },
    { printed: "", error: "set process.execCPUAffinity.final: EINVAL" },
  ]);
});
