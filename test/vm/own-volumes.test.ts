/**
 * Volumes of the pod's own: an emptyDir of kubelet's, and what an annotation names. The guest keeps what it knows of them, yet containers of the pod see
 * each other's changes at once, since all of them have such a folder in one place.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { readMounts } from "../../src/host/mount-table.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { type HostState, TEST_DISK } from "../helpers/host.ts";
import { HostMounts } from "../helpers/host-mounts.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { hangLimitMs, Scratch, type Spec } from "../helpers/tskata.ts";
import { until } from "../helpers/waits.ts";

const scratch = new Scratch("own-volumes");
const host = (path: string): string => join(scratch.folder, path);
const EMPTY_DIRS = "pods/uid/volumes/kubernetes.io~empty-dir";
const cache = host(`${EMPTY_DIRS}/cache`);
const memory = host(`${EMPTY_DIRS}/memory`);
const memoryPart = host(`${EMPTY_DIRS}/memory-part`);
const busy = host(`${EMPTY_DIRS}/busy`);
const subPath = (name: string): string => host(`pods/uid/volume-subpaths/${name}`);
const hostMounts = new HostMounts();
/** Longer than anything written may wait, and than names may be kept. */
const SETTLED_MS = 2500;
const KEPT_MS = 6000;

test.after.always("clean up", async () => {
  await scratch.cleanUp().catch(() => {});
  hostMounts.unmountAll();
  await scratch.cleanUp();
});

function bind(spec: Spec, source: string, destination: string, ...options: string[]): void {
  spec.mounts.push({ destination, type: "bind", source, options: ["rbind", "rprivate", ...options] });
}

/** A shell that stays: a line in it takes milliseconds, so two follow each other well within what the guest may keep. */
class Shell {
  readonly #child: ReturnType<Scratch["spawn"]>;
  readonly #lines: AsyncIterator<string>;

  constructor(id: string) {
    this.#child = scratch.spawn(["exec", id, "sh"]);
    if (this.#child.stdout === null) throw new Error("no stdout");
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** What the line prints, with its errors. */
  async run(line: string): Promise<string> {
    this.#child.stdin?.write(`{ ${line}; } 2>&1\nprintf '\\n@\\n'\n`);
    const said: string[] = [];
    for (let next = await this.#lines.next(); next.value !== "@"; next = await this.#lines.next()) {
      if (next.done === true) throw new Error(`the shell has ended after "${line}": ${said.join("\n")}`);
      said.push(next.value);
    }
    return said.join("\n").trimEnd();
  }

  async end(): Promise<void> {
    const over = new Promise((done) => this.#child.once("close", done));
    this.#child.stdin?.end();
    await over;
  }
}

let one: Shell;
let two: Shell;
/** With the mounts of the tests' own. */
let before: HostState;

test.before("the pod: two containers with volumes in common", async (t) => {
  t.timeout(hangLimitMs * 2);
  for (const folder of [cache, busy, host("volume"), host("anonymous/below"), host("reference"), host("tools")]) mkdirSync(folder, { recursive: true });
  mkdirSync(join(cache, "deep/part"), { recursive: true });
  for (const name of ["fsops", "watch"]) buildFixture(name, host(`tools/${name}`));
  hostMounts.mount(memory, "-t", "tmpfs", TEST_DISK);
  mkdirSync(join(memory, "part"));
  hostMounts.mount(memoryPart, "-t", "tmpfs", TEST_DISK);
  mkdirSync(join(memoryPart, "part"));
  hostMounts.mount(join(busy, "mounted"), "-t", "tmpfs", TEST_DISK);
  // As kubelet does for a subPath.
  hostMounts.mount(subPath("cache/two/0"), "--bind", join(cache, "deep/part"));
  hostMounts.mount(subPath("memory/two/1"), "--bind", join(memory, "part"));
  hostMounts.mount(subPath("memory-part/one/0"), "--bind", join(memoryPart, "part"));
  before = scratch.host();
  await startPod(scratch, "one", (spec) => {
    spec.annotations = { ...spec.annotations, "io.tskata.own-volumes": "/anonymous" };
    bind(spec, cache, "/cache");
    bind(spec, memory, "/memory");
    bind(spec, subPath("memory-part/one/0"), "/only-part");
    bind(spec, busy, "/busy");
    bind(spec, host("volume"), "/vol");
    bind(spec, host("anonymous"), "/anonymous");
    bind(spec, host("tools"), "/tools", "ro");
  });
  const joined = await joinPod(scratch, "one");
  await scratch.running("two", (spec) => {
    joined(spec);
    bind(spec, cache, "/cache");
    bind(spec, cache, "/cache-ro", "ro");
    bind(spec, cache, "/cache-slave", "rslave");
    bind(spec, join(cache, "deep"), "/deep");
    bind(spec, subPath("cache/two/0"), "/part");
    bind(spec, subPath("memory/two/1"), "/memory-part");
    bind(spec, host("volume"), "/vol");
    bind(spec, host("anonymous/below"), "/below");
    bind(spec, host("tools"), "/tools", "ro");
  });
  one = new Shell("one");
  two = new Shell("two");
});

/** Where in the shared tree a mount point's folder is: of which file server, below what. */
async function shownAt(shell: Shell, point: string): Promise<string> {
  const line = await shell.run(`grep ' ${point} ' /proc/self/mountinfo`);
  const [left = "", right = ""] = line.split(" - ");
  return `${right.split(" ")[1]} ${left.split(" ")[3]}`;
}

/** Mounts in the sandbox process's mount namespace that are own volumes, by name. */
function ownMounts(id: string): string[] {
  const { sandboxPid } = scratch.pod(id);
  return readMounts(sandboxPid)
    .flatMap(({ point }) => /\/shared\/\w+\/[^/]+\/own\/(.+)$/.exec(point)?.[1] ?? [])
    .sort();
}

function nameOf(folder: string): string {
  const { dev, ino } = statSync(folder, { bigint: true });
  return `${dev.toString(16)}-${ino}`;
}

test.serial("which volumes are the pod's own, and where they are", async (t) => {
  t.timeout(hangLimitMs);
  const own = (folder: string, below = ""): string => `tskata-cached /one/own/${nameOf(folder)}${below}`;
  t.is(await shownAt(one, "/cache"), own(cache));
  t.is(await shownAt(one, "/memory"), own(memory));
  t.is(await shownAt(one, "/anonymous"), own(host("anonymous")));
  t.is(await shownAt(one, "/only-part"), own(memoryPart, "/part"));
  t.is(await shownAt(two, "/cache"), own(cache));
  t.is(await shownAt(two, "/cache-ro"), own(cache));
  t.is(await shownAt(two, "/deep"), own(cache, "/deep"));
  t.is(await shownAt(two, "/part"), own(cache, "/deep/part"));
  t.is(await shownAt(two, "/memory-part"), own(memory, "/part"));
  t.is(await shownAt(two, "/below"), own(host("anonymous"), "/below"), "not named by this container, but in what another has named");
  for (const [shell, point, id] of [
    [one, "/vol", "one"],
    [two, "/vol", "two"],
    [one, "/busy", "one"],
    [two, "/cache-slave", "two"],
  ] as const) {
    t.regex(await shownAt(shell, point), new RegExp(`^tskata /${id}/mounts/\\d+$`), point);
  }
  t.deepEqual(ownMounts("one"), [cache, memory, memoryPart, host("anonymous")].map(nameOf).sort());
});

/** What each does, the other must see at once: made, found to be absent, written, renamed, removed. */
async function alternate(t: ExecutionContext, [first, here]: readonly [Shell, string], [second, there]: readonly [Shell, string]): Promise<void> {
  t.regex(await second.run(`cat ${there}/new`), /No such file/);
  t.is(await first.run(`echo data >${here}/new`), "");
  t.is(await second.run(`cat ${there}/new; ls ${there}`), "data\nnew");
  t.is(await second.run(`echo more >>${there}/new; mv ${there}/new ${there}/moved; mkdir ${there}/folder`), "");
  t.is(await first.run(`cat ${here}/moved; cat ${here}/new 2>/dev/null || echo gone; ls ${here}`), "data\nmore\ngone\nfolder\nmoved");
  t.is(await first.run(`chmod 600 ${here}/moved; truncate -s 3 ${here}/moved; rmdir ${here}/folder`), "");
  t.is(await second.run(`stat -c '%a %s' ${there}/moved; ls ${there}`), "600 3\nmoved");
  t.is(await second.run(`rm ${there}/moved`), "");
  t.is(await first.run(`cat ${here}/moved 2>/dev/null || echo gone; ls ${here}`), "gone");
}

for (const [what, here, there] of [
  ["an emptyDir", "/cache/work", "/cache/work"],
  ["a folder of an emptyDir", "/cache/deep/here", "/deep/here"],
  ["a subPath", "/cache/deep/part/here", "/part/here"],
] as const) {
  test.serial(`${what}: containers see each other's changes at once, in both directions`, async (t) => {
    t.timeout(hangLimitMs);
    t.is(await one.run(`mkdir ${here}`), "");
    for (let turn = 0; turn < 3; turn++) {
      await alternate(t, [one, here], [two, there]);
      await alternate(t, [two, there], [one, here]);
    }
  });
}

test.serial("a subPath of an emptyDir in memory, and a folder of one that another container has named", async (t) => {
  t.timeout(hangLimitMs);
  await alternate(t, [one, "/memory/part"], [two, "/memory-part"]);
  await alternate(t, [two, "/memory-part"], [one, "/memory/part"]);
  await alternate(t, [one, "/anonymous/below"], [two, "/below"]);
});

test.serial("a read-only mount of it sees what others do, and is not written by", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await one.run("echo data >/cache/read"), "");
  t.is(await two.run("cat /cache-ro/read"), "data");
  t.regex(await two.run("echo x >/cache-ro/read"), /Read-only file system/);
  t.is(await one.run("rm /cache/read"), "");
  t.regex(await two.run("cat /cache-ro/read"), /No such file/);
});

test.serial("a watcher in one container hears what another does, as on the host", async (t) => {
  t.timeout(hangLimitMs);
  const change = (folder: string): string =>
    `cd ${folder}; mkdir d; echo x >f; mv f g; ln g h; chmod 600 h; rm g h; echo x >sub/f; mv sub/f sub/g; rm sub/g; rmdir d; touch end`;
  const heard = async (command: string, args: string[], folder: string, act: () => Promise<unknown>): Promise<string[]> => {
    const child = command === "" ? scratch.spawn(["exec", "two", "/tools/watch", ...args]) : spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
    if (child.stdout === null) throw new Error(`no output of ${folder}`);
    const lines: string[] = [];
    const ended = new Promise((done) => child.once("close", done));
    const reader = createInterface(child.stdout);
    await new Promise((ready) => reader.once("line", ready));
    reader.on("line", (line) => lines.push(line));
    await act();
    await ended;
    return lines;
  };
  mkdirSync(host("reference/watched/sub"), { recursive: true });
  await one.run("mkdir -p /cache/watched/sub");
  const reference = host("reference/watched");
  const expected = await heard(host("tools/watch"), [reference, `${reference}/sub`], reference, async () => {
    spawnSync(host("bundle-0/rootfs/bin/busybox"), ["sh", "-c", change(reference)]);
  });
  t.true(expected.length > 15, expected.join("\n"));
  const folder = "/cache/watched";
  t.deepEqual(await heard("", [folder, `${folder}/sub`], folder, async () => await one.run(`(${change(folder)})`)), expected);
});

test.serial("a lock on the folder itself holds between containers, a unix socket connects them", async (t) => {
  t.timeout(hangLimitMs);
  const holder = scratch.spawn(["exec", "one", "/tools/fsops", "--hold", "flock", "/cache/deep"]);
  const over = new Promise((done) => holder.once("close", done));
  await new Promise((said) => holder.stdout?.once("data", said));
  const attempts = ["/deep", "/cache/deep", "/part"].map((folder) => `/tools/fsops --try flock ${folder}`).join("; ");
  t.is(await two.run(attempts), "EAGAIN\nEAGAIN\nok");
  holder.stdin?.end();
  await over;
  const server = scratch.exec("one", ["/tools/fsops", "--serve", "/cache/deep/socket"]);
  await two.run("while ! [ -S /deep/socket ]; do sleep 0.1; done; sleep 0.5");
  t.is(await two.run("/tools/fsops --call /deep/socket"), "connect: ok\nreceived hello");
  await server;
});

test.serial("what the host changes is seen by its name after five seconds", async (t) => {
  t.timeout(hangLimitMs);
  writeFileSync(join(cache, "hosts"), "one");
  t.regex(await one.run("cat /cache/hosts-2; cat /cache/hosts"), /No such file[\s\S]*one$/);
  writeFileSync(join(cache, "hosts"), "another");
  writeFileSync(join(cache, "hosts-2"), "two");
  await after(KEPT_MS);
  t.is(await one.run("cat /cache/hosts /cache/hosts-2"), "anothertwo");
});

test.serial("a folder that the host has just made is a container's, though another has looked for it before", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "one");
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    spec.process.args = ["sleep", "100000"];
    bind(spec, join(cache, "made/later"), "/later");
    bind(spec, host("tools"), "/tools", "ro");
  });
  t.regex(await one.run("ls /cache/made; ls /cache/made/later"), /No such file/);
  mkdirSync(join(cache, "made/later"), { recursive: true });
  const begun = performance.now();
  await scratch.create("three", bundle);
  await scratch.ok(["start", "three"]);
  t.log(`created after ${Math.round(performance.now() - begun)} ms`);
  t.is(await scratch.sh("three", "echo three >/later/file"), "");
  t.is(await one.run("cat /cache/made/later/file"), "three");
});

test.serial("a paused container's files are whole, and none of it comes later", async (t) => {
  t.timeout(hangLimitMs);
  const grown = join(cache, "made/later/grown");
  const child = scratch.spawn(["exec", "three", "/tools/fsops", "--grow", "/later/grown"]);
  const over = new Promise((done) => child.once("close", done));
  await until(() => existsSync(grown) && statSync(grown).size > 31_000, "it writes");
  await scratch.ok(["pause", "three"]);
  const { size } = statSync(grown);
  t.is(size % 31, 0);
  await after(SETTLED_MS);
  t.is(statSync(grown).size, size);
  await scratch.ok(["resume", "three"]);
  await scratch.ok(["exec", "three", "killall", "fsops"]);
  child.stdin?.end();
  await over;
});

test.serial("when a container's end is told, the host has what it wrote; another's goes on", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "one");
  const grown = join(cache, "ended");
  await scratch.running("ended", (spec) => {
    joined(spec);
    spec.process.args = ["/tools/fsops", "--grow", "/cache/ended"];
    bind(spec, cache, "/cache");
    bind(spec, host("tools"), "/tools", "ro");
  });
  await until(() => existsSync(grown) && statSync(grown).size > 31_000, "it writes");
  await scratch.ok(["kill", "ended", "KILL"]);
  await scratch.until("ended", "stopped");
  const { size } = statSync(grown);
  t.is(await one.run("stat -c %s /cache/ended"), String(size));
  await after(SETTLED_MS);
  t.is(statSync(grown).size, size);
  await scratch.ok(["delete", "ended"]);
  t.is(await one.run("echo still >/cache/still; cat /cache/still"), "still");
});

test.serial("a folder that is a symlink by the time the guest looks is not followed", async (t) => {
  t.timeout(hangLimitMs);
  mkdirSync(join(cache, "swapped"));
  const joined = await joinPod(scratch, "one");
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    bind(spec, join(cache, "swapped"), "/swapped");
    const swap = `mv ${join(cache, "swapped")} ${join(cache, "was")} && ln -s /run ${join(cache, "swapped")}`;
    spec.hooks = { createRuntime: [{ path: "/bin/sh", args: ["sh", "-c", swap] }] };
  });
  const outcome = await scratch.tryCreate("swapped", bundle);
  t.not(outcome.code, 0);
  t.regex(outcome.stderr, /bind \/swapped: ELOOP/);
});

test.serial("the annotation: what cannot be had is refused by name", async (t) => {
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle((spec) => {
    spec.annotations = { "io.tskata.own-volumes": "/data" };
    bind(spec, host("volume"), "/vol");
  });
  const { code, stderr } = await scratch.tryCreate("refused", bundle);
  t.not(code, 0);
  t.regex(stderr.replaceAll("\\", ""), /annotation io\.tskata\.own-volumes: "\/data" is the destination of no bind mount of the container/);
});

test.serial("two containers that come at once share one mount; the deletion of any leaves the others theirs", async (t) => {
  t.timeout(hangLimitMs * 2);
  const late = host(`${EMPTY_DIRS}/late`);
  mkdirSync(late);
  const joined = await joinPod(scratch, "one");
  const ids = ["four", "five"];
  const bundles = await Promise.all(
    ids.map(
      async () =>
        await scratch.bundle((spec) => {
          joined(spec);
          spec.process.args = ["sleep", "100000"];
          bind(spec, late, "/late");
        }),
    ),
  );
  await Promise.all(ids.map(async (id, index) => await scratch.create(id, bundles[index] ?? "")));
  t.is(ownMounts("one").filter((name) => name === nameOf(late)).length, 1);
  for (const id of ids) await scratch.ok(["start", id]);
  const [four, five] = [new Shell("four"), new Shell("five")];
  await alternate(t, [four, "/late"], [five, "/late"]);
  await four.end();
  await scratch.ok(["delete", "--force", "four"]);
  t.is(await five.run("echo data >/late/file; cat /late/file"), "data");
  await one.end();
  await scratch.ok(["delete", "--force", "one"]);
  t.is(await five.run("echo more >>/late/file; cat /late/file"), "data\nmore");
  t.is(readFileSync(join(late, "file"), "utf8"), "data\nmore\n");
  t.is(await two.run("echo two >/cache/two; cat /cache/two"), "two");
  await five.end();
  await two.end();
  for (const id of ["five", "three", "two"]) await scratch.ok(["delete", "--force", id]);
  t.is(readFileSync(join(cache, "two"), "utf8"), "two\n");
  t.deepEqual(await scratch.settledLeftovers(before), []);
});

test.serial("without writeback names are kept as well, and every write is the host's at once", async (t) => {
  t.timeout(hangLimitMs * 2);
  const env = { TSKATA_CONFIG: scratch.config("through", "[sandbox]\nwriteback = false") };
  await scratch.running("through", (spec) => bind(spec, cache, "/cache"), env);
  const shell = new Shell("through");
  t.is(await shownAt(shell, "/cache"), `tskata /through/own/${nameOf(cache)}`);
  t.is(await shell.run("exec 3>/cache/through; echo data >&3"), "");
  t.is(readFileSync(join(cache, "through"), "utf8"), "data\n");
  await shell.end();
  await scratch.ok(["delete", "--force", "through"]);
  t.deepEqual(await scratch.settledLeftovers(before), []);
});
