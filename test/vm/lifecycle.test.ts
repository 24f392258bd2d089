/** The OCI lifecycle of one container, from a bundle made by hand, and what each wrong order answers. */
import { readFileSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import test from "ava";
import { qemuOf } from "../helpers/processes.ts";
import { shell } from "../helpers/streams.ts";
import { describe, driver, hangLimitMs, outcomeOf, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("lifecycle");
test.after.always("clean up", async () => await scratch.cleanUp());

test.serial("create, start, exec, kill, delete: the state follows and nothing is left", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "echo hello from $(uname -r); sleep 100000"];
  });
  const pidFile = join(scratch.folder, "init.pid");
  await scratch.create("c1", bundle, ["--pid-file", pidFile]);
  const created = await scratch.state("c1");
  t.is(created.status, "created");
  t.is(created["id"], "c1");
  t.is(created["bundle"], bundle);
  t.is(created.pid, Number(readFileSync(pidFile, "utf8")));
  t.regex(String(created["ociVersion"]), /^1\.[0-2]\./);
  t.is(scratch.output("c1"), "", "nothing of the container runs before start");

  await scratch.ok(["start", "c1"]);
  t.is((await scratch.state("c1")).status, "running");
  const exec = await scratch.exec("c1", ["sh", "-c", "echo out; echo err >&2; exit 7"]);
  t.deepEqual([exec.code, exec.stdout, exec.stderr], [7, "out\n", "err\n"]);
  t.regex(scratch.output("c1"), /^hello from .*tskata/);
  t.notRegex(scratch.output("c1"), new RegExp(release().replaceAll(".", "\\.")));

  await scratch.ok(["kill", "c1", "KILL"]);
  await scratch.until("c1", "stopped");
  await scratch.ok(["delete", "c1"]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("each wrong order is refused in runc's words and changes nothing", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sleep", "100000"];
  });
  const refused = async (args: string[], pattern: RegExp): Promise<void> => {
    const outcome = await scratch.tskata(args);
    t.not(outcome.code, 0, args.join(" "));
    t.regex(outcome.stderr, pattern, args.join(" "));
  };
  for (const verb of ["start", "state", "kill", "pause", "resume", "delete", "ps"]) {
    await refused([verb, "nobody"], /container does not exist/);
  }
  t.is((await scratch.tskata(["delete", "--force", "nobody"])).code, 0, "delete --force of an unknown container is quiet");

  await scratch.create("c2", bundle);
  await refused(["create", "--bundle", bundle, "c2"], /container with given ID already exists/);
  await refused(["delete", "c2"], /cannot delete container c2 that is not stopped: created/);
  await refused(["resume", "c2"], /container not paused/);
  t.is((await scratch.state("c2")).status, "created");

  await scratch.ok(["start", "c2"]);
  await refused(["start", "c2"], /cannot start an already running container/);
  await refused(["delete", "c2"], /cannot delete container c2 that is not stopped: running/);
  t.is((await scratch.state("c2")).status, "running");

  await scratch.ok(["pause", "c2"]);
  t.is((await scratch.state("c2")).status, "paused");
  await refused(["exec", "c2", "true"], /cannot exec in a paused container/);
  await scratch.ok(["resume", "c2"]);
  t.is((await scratch.state("c2")).status, "running");
  t.is(await scratch.sh("c2", "echo back"), "back");

  await scratch.ok(["kill", "c2", "9"]);
  await scratch.until("c2", "stopped");
  await refused(["start", "c2"], /cannot start a container that has stopped/);
  await refused(["kill", "c2", "TERM"], /container not running/);
  await refused(["exec", "c2", "true"], /cannot exec in a stopped container/);
  await scratch.ok(["delete", "c2"]);
  await refused(["delete", "c2"], /container does not exist/);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("run gives the container's output and status, and a signal's", async (t) => {
  t.timeout(hangLimitMs * 2);
  const seven = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "cat; exit 7"];
  });
  const outcome = await scratch.tskata(["run", "--bundle", seven, "r1"], { input: "through stdin\n" });
  t.deepEqual([outcome.code, outcome.stdout], [7, "through stdin\n"], outcome.stderr);

  const killed = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "kill -TERM $$; sleep 100"];
    spec.linux.namespaces = spec.linux.namespaces.filter((namespace) => namespace.type !== "pid"); // pid 1 ignores its own signals
  });
  t.is((await scratch.tskata(["run", "--bundle", killed, "r2"])).code, 128 + 15);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("hooks run at their times with the state on stdin", async (t) => {
  t.timeout(hangLimitMs);
  const log = join(scratch.folder, "hooks.log");
  const hook = (name: string) => [{ path: "/bin/sh", args: ["sh", "-c", `printf '${name} ' >>"${log}"; cat >>"${log}"; echo >>"${log}"`] }];
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["true"];
    spec.hooks = {};
    for (const name of ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]) spec.hooks[name] = hook(name);
    spec.hooks["startContainer"] = [{ path: "/bin/sh", args: ["sh", "-c", "cat >/hook-in-the-container"] }];
  });
  await scratch.ok(["run", "--bundle", bundle, "h1"]);
  const seen = readFileSync(log, "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const [name, json] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" "))];
      const state = JSON.parse(json) as { id: string; status: string };
      t.is(state.id, "h1");
      return `${name} ${state.status}`;
    });
  t.deepEqual(seen, ["prestart creating", "createRuntime creating", "createContainer creating", "poststart running", "poststop stopped"]);
  const inside = JSON.parse(readFileSync(join(bundle, "rootfs/hook-in-the-container"), "utf8")) as { id: string };
  t.is(inside.id, "h1");
});

/** Where a process is: its namespaces and its folder. */
const PLACE = "for name in mnt net uts ipc cgroup pid; do readlink /proc/self/ns/$name; done; pwd";
const HOST_HOOKS = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

test.serial("hooks of the host run in the namespaces of who calls tskata, and in the bundle's folder", async (t) => {
  t.timeout(hangLimitMs);
  const told = (name: string): string => join(scratch.folder, `place-${name}`);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["true"];
    spec.hooks = {};
    for (const kind of HOST_HOOKS) spec.hooks[kind] = [{ path: "/bin/sh", args: ["sh", "-c", `{ ${PLACE}; } >"${told(kind)}"`] }];
  });
  const lifecycle = [
    `{ ${PLACE}; } >"${told("caller")}"`,
    `tskata create --bundle "${bundle}" h2 </dev/null >"${told("create")}" 2>&1`,
    "tskata start h2",
    "tskata delete --force h2",
  ];
  const outcome = await shell(scratch, `${PLACE}; unshare --mount --net --uts --ipc --cgroup --pid --fork --mount-proc bash -ec '${lifecycle.join("; ")}'`);
  t.is(outcome.code, 0, describe(outcome));
  const [caller, outside] = [readFileSync(told("caller"), "utf8"), outcome.stdout].map((text) => text.split("\n").slice(0, 6));
  for (const [index, link] of (caller ?? []).entries()) t.not(link, outside?.[index]);
  for (const kind of HOST_HOOKS) t.deepEqual(readFileSync(told(kind), "utf8").trim().split("\n"), [...(caller ?? []), bundle], kind);
  t.deepEqual(scratch.leftovers(), []);
});

/** With the kvm driver the machine is in the sandbox process: there is no process that could be stopped without the one that waits. */
const besideSandbox = driver() === "kvm" ? test.serial.skip : test.serial;

besideSandbox("a machine that does not stop when asked gets sandbox.stop_timeout_s", async (t) => {
  t.timeout(hangLimitMs * 2);
  const removal = async (seconds: number): Promise<number> => {
    const config = join(scratch.folder, `stop-${seconds}.toml`);
    writeFileSync(config, `[sandbox]\nstop_timeout_s = ${seconds}\n`);
    const id = `stop-${seconds}`;
    const bundle = await scratch.bundle();
    const created = await scratch.tryCreate(id, bundle, [], { TSKATA_CONFIG: config });
    t.is(created.code, 0, describe(created));
    process.kill(qemuOf(scratch.pod(id).sandboxPid), "SIGSTOP");
    const start = Date.now();
    await scratch.tskata(["delete", "--force", id]);
    return (Date.now() - start) / 1000;
  };
  const short = await removal(1);
  const long = await removal(16);
  t.true(long - short > 10, `${short} s with 1 s, ${long} s with 16 s`);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("delete --force while run still attends: both end well, and run's status is the signal's", async (t) => {
  t.timeout(hangLimitMs * 2);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sh", "-c", "echo here; sleep 100000"];
  });
  const child = scratch.spawn(["run", "--bundle", bundle, "raced"]);
  const begun = new Promise((done) => child.stdout?.once("data", done));
  const attended = outcomeOf(child, {});
  await begun;
  const deletions = await Promise.all([1, 2, 3].map(async () => await scratch.tskata(["delete", "--force", "raced"])));
  for (const deletion of deletions) t.deepEqual([deletion.code, deletion.stderr], [0, ""], describe(deletion));
  const outcome = await attended;
  t.deepEqual([outcome.code, outcome.stderr], [137, ""], describe(outcome));
  t.deepEqual(scratch.leftovers(), []);
});
