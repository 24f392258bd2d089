/** test/helpers/host.ts: each kind of thing that a test could leave on the host is seen. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { hierarchies } from "../../src/host/cgroup.ts";
import { hostDifference, hostState } from "../helpers/host.ts";
import { repository, temporaryFolder } from "./helpers.ts";

function marks(t: ExecutionContext): { folder: string; root: string; dist: string } {
  const folder = temporaryFolder(t);
  const root = join(folder, "root");
  mkdirSync(root);
  return { folder, root, dist: join(repository, "dist") };
}

function sleeper(t: ExecutionContext, options: { cwd?: string; env?: NodeJS.ProcessEnv; fd?: string } = {}): ChildProcess {
  const words = options.fd === undefined ? ["sleep", ["60"]] : ["bash", ["-c", 'exec 7<"$0"; exec sleep 60', options.fd]];
  const child = spawn(words[0] as string, words[1] as string[], { cwd: options.cwd, env: { ...process.env, ...options.env }, stdio: "ignore" });
  t.teardown(() => child.kill("SIGKILL"));
  return child;
}

async function seen(t: ExecutionContext, look: () => string[], wanted: RegExp): Promise<void> {
  for (const end = performance.now() + 5000; performance.now() < end; await after(20)) {
    if (look().some((line) => wanted.test(line))) {
      t.pass();
      return;
    }
  }
  t.fail(`not seen: ${wanted}: ${look().join("\n")}`);
}

test("processes by what they are told, work in and hold", async (t) => {
  for (const [how, wanted] of [
    [{ env: { X: "FOLDER" } }, /sleep 60, is told the folder$/],
    [{ cwd: "FOLDER" }, /sleep 60, has it as its cwd$/],
    [{ fd: "FOLDER/file" }, /sleep 60, holds .*\/file$/],
  ] as const) {
    const mine = marks(t);
    writeFileSync(join(mine.folder, "file"), "");
    const before = hostState(mine);
    sleeper(t, JSON.parse(JSON.stringify(how).replaceAll("FOLDER", mine.folder)) as object);
    await seen(t, () => hostDifference(before, hostState(mine)), wanted);
  }
});

test("a script that whoever started it has left behind, though a shell of the test's own is none", async (t) => {
  const mine = marks(t);
  const before = hostState(mine);
  const script = join(mine.folder, "hook.sh");
  writeFileSync(script, '#!/bin/sh\nread line <"$0.fifo"\n', { mode: 0o755 });
  t.is(spawnSync("mkfifo", [`${script}.fifo`]).status, 0);
  const own = spawn(script, { stdio: "ignore" });
  t.teardown(() => own.kill("SIGKILL"));
  t.deepEqual(hostDifference(before, hostState(mine)), []);
  // The shell between them has ended: it is nobody's child now.
  const left = spawn("sh", ["-c", '"$0" & echo $!', script], { stdio: ["ignore", "pipe", "ignore"] });
  const [pid] = (await once(left.stdout, "data")) as [Buffer];
  t.teardown(() => process.kill(Number(pid), "SIGKILL"));
  await seen(t, () => hostDifference(before, hostState(mine)), new RegExp(`^process ${Number(pid)} .*: /bin/sh .*/hook\\.sh, is told the folder$`));
});

test("state, sockets, cgroups, names in /dev/shm", async (t) => {
  const mine = marks(t);
  const before = hostState(mine);
  mkdirSync(join(mine.root, "box"));
  const socket = join(mine.folder, "a.sock");
  const server = createServer().listen(socket);
  t.teardown(() => server.close());
  await new Promise((done) => server.once("listening", done));
  const [hierarchy] = hierarchies();
  const cgroup = join(hierarchy?.mountPoint ?? "", basename(mine.folder));
  mkdirSync(cgroup);
  t.teardown(() => rmdirSync(cgroup));
  const found = hostDifference(before, hostState(mine));
  t.deepEqual(found.sort(), ["state box", `socket ${socket}`, `cgroup ${cgroup}`].sort());
});

test("a mount", async (t) => {
  const mine = marks(t);
  const before = hostState(mine);
  const target = join(mine.folder, "mount");
  mkdirSync(target);
  t.is(spawnSync("mount", ["-t", "tmpfs", "tskata-unit", target]).status, 0);
  const found = hostDifference(before, hostState(mine));
  t.is(spawnSync("umount", [target]).status, 0);
  t.is(found.length, 1, found.join("\n"));
  t.regex(found[0] ?? "", /^mount .* - tmpfs tskata-unit/);
  t.deepEqual(hostDifference(before, hostState(mine)), []);
  t.false(readFileSync("/proc/self/mountinfo", "utf8").includes(target));
});
