/**
 * What the host changes in a volume, an inotify watcher in a container hears of as one on the host does: test/fixtures/watch.c runs on both, on the
 * same folders and files, and the two texts must be equal.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { buildFixture } from "../helpers/fixtures.ts";
import { amount, hangLimitMs, Scratch } from "../helpers/tskata.ts";
import { until } from "../helpers/waits.ts";

const scratch = new Scratch("inotify");
const host = (path: string): string => join(scratch.folder, path);
const program = host("watch");

test.after.always("clean up", () => scratch.cleanUp());

test.before("a container with volumes", async (t) => {
  t.timeout(hangLimitMs);
  buildFixture("watch", program);
  buildFixture("dnotify", host("dnotify"));
  for (const folder of ["volume/sub/deep", "apart"]) mkdirSync(host(folder), { recursive: true });
  writeFileSync(host("volume/sub/watched"), "");
  writeFileSync(host("one-file"), "one file");
  await scratch.running("one", (spec) => {
    spec.mounts.push({ destination: "/vol", type: "bind", source: host("volume"), options: ["bind"] });
    spec.mounts.push({ destination: "/vol-ro", type: "bind", source: host("volume"), options: ["bind", "ro"] });
    spec.mounts.push({ destination: "/etc/one-file", type: "bind", source: host("one-file"), options: ["bind"] });
    spec.mounts.push({ destination: "/bin/dnotify", type: "bind", source: host("dnotify"), options: ["bind", "ro"] });
    spec.mounts.push({ destination: "/bin/watch-events", type: "bind", source: program, options: ["bind", "ro"] });
  });
});

interface Watcher {
  readonly lines: string[];
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
}

function watcher(child: ChildProcess): Watcher {
  const lines: string[] = [];
  if (child.stdout === null) throw new Error("no output");
  const reader = createInterface(child.stdout);
  const ready = new Promise<void>((done, failed) => {
    reader.once("line", (line) => (line === "watching" ? done() : failed(new Error(line))));
    child.once("close", (code) => failed(new Error(`the watcher ended with ${code}`)));
  });
  reader.on("line", (line) => lines.push(line));
  return { lines, ready, ended: new Promise((done) => child.once("close", () => done())) };
}

/**
 * Events of the host's watcher and of the one in the container, of what `change` does, which can ask how many both have heard of. Paths are of the
 * host, then of the guest.
 */
async function both(paths: readonly (readonly [string, string])[], change: (heard: () => number) => void | Promise<void>): Promise<[string[], string[]]> {
  const onHost = watcher(
    spawn(
      program,
      paths.map(([path]) => host(path)),
      { stdio: ["ignore", "pipe", "inherit"] },
    ),
  );
  const inGuest = watcher(scratch.spawn(["exec", "one", "/bin/watch-events", ...paths.map(([, path]) => path)]));
  await Promise.all([onHost.ready, inGuest.ready]);
  await change(() => Math.min(onHost.lines.length, inGuest.lines.length) - 1);
  writeFileSync(host("volume/end"), "");
  await Promise.all([onHost.ended, inGuest.ended]);
  unlinkSync(host("volume/end"));
  return [onHost.lines.slice(1), inGuest.lines.slice(1)];
}

function equal(t: ExecutionContext, [onHost, inGuest]: [string[], string[]], least: number): void {
  t.true(onHost.length >= least, `the host's watcher has heard of ${onHost.length}`);
  t.deepEqual(inGuest, onHost);
}

const FOLDERS = [
  ["volume", "/vol"],
  ["volume/sub", "/vol/sub"],
  ["volume/sub/deep", "/vol/sub/deep"],
] as const;

function script(): void {
  const path = (name: string): string => host(`volume/${name}`);
  writeFileSync(path("a"), "a");
  appendFileSync(path("a"), "b");
  chmodSync(path("a"), 0o600);
  mkdirSync(path("folder")); // between two equal events, which could become one
  utimesSync(path("a"), 1, 2);
  chmodSync(path("sub"), 0o700);
  renameSync(path("a"), path("b"));
  renameSync(path("b"), path("sub/c"));
  renameSync(path("folder"), path("sub/deep/folder"));
  symlinkSync("nowhere", path("link"));
  linkSync(path("sub/c"), path("sub/deep/hard"));
  writeFileSync(path("other"), "");
  renameSync(path("other"), path("sub/c"));
  renameSync(path("sub/c"), host("apart/c"));
  renameSync(host("apart/c"), path("sub/back"));
  appendFileSync(path("sub/deep/hard"), "more");
  unlinkSync(path("link"));
  unlinkSync(path("sub/back"));
  unlinkSync(path("sub/deep/hard"));
  rmdirSync(path("sub/deep/folder"));
}

test.serial("folders: what is made, changed, renamed and removed, in order", async (t) => {
  t.timeout(hangLimitMs);
  equal(t, await both(FOLDERS, script), 25);
});

test.serial("a read-only volume", async (t) => {
  t.timeout(hangLimitMs);
  equal(
    t,
    await both(
      FOLDERS.map(([path, guest]) => [path, guest.replace("/vol", "/vol-ro")]),
      script,
    ),
    25,
  );
});

test.serial("a watched file of a folder, up to its end", async (t) => {
  t.timeout(hangLimitMs);
  const path = host("volume/sub/watched");
  const change = (): void => {
    appendFileSync(path, "a");
    chmodSync(path, 0o640);
    renameSync(path, host("volume/sub/moved"));
    appendFileSync(host("volume/sub/moved"), "b");
    unlinkSync(host("volume/sub/moved"));
  };
  const [onHost, inGuest] = await both([...FOLDERS, ["volume/sub/watched", "/vol/sub/watched"]], change);
  // On the host the inode is kept by the file server until the guest forgets it.
  const ofEnd = new Set(["4 DELETE_SELF ", "4 IGNORED "]);
  const others = (lines: string[]): string[] => lines.filter((line) => !ofEnd.has(line));
  equal(t, [others(onHost), others(inGuest)], 15);
  t.deepEqual(
    inGuest.filter((line) => ofEnd.has(line)),
    [...ofEnd],
  );
});

test.serial("a volume that is a file", async (t) => {
  t.timeout(hangLimitMs);
  const change = (): void => {
    appendFileSync(host("one-file"), "more");
    chmodSync(host("one-file"), 0o600);
  };
  equal(t, await both([FOLDERS[0], ["one-file", "/etc/one-file"]], change), 3);
});

/** Of each file four: it is made, changed, closed and removed. */
function changeFiles(files: number): void {
  for (let i = 0; i < files; i++) {
    const path = host(`volume/sub/file-${i % 50}`);
    writeFileSync(path, "x");
    unlinkSync(path);
  }
}

const atOnce = Math.round(10_000 * amount);
test.serial(`${atOnce} changes at once`, async (t) => {
  t.timeout(hangLimitMs * 2);
  equal(t, await both(FOLDERS, () => changeFiles(atOnce / 4)), atOnce);
});

// More than the host's kernel queues for one watcher (fs.inotify.max_queued_events) at a time.
const inAll = Math.round(20_000 * amount);
test.serial(`${inAll} changes in ten parts, each once those before have been heard of`, async (t) => {
  t.timeout(hangLimitMs * 2);
  const [onHost, inGuest] = await both(FOLDERS, async (heard) => {
    for (let part = 1; part <= 10; part++) {
      changeFiles(Math.round(inAll / 40));
      await until(() => heard() >= part * Math.round(inAll / 40) * 4, `${part} parts are heard of`);
    }
  });
  equal(t, [onHost, inGuest], Math.round(inAll / 40) * 40);
});

test.serial("a file of 5 GiB, sparse: changed near its end, cut and extended", async (t) => {
  t.timeout(hangLimitMs);
  const path = host("volume/sub/large");
  writeFileSync(path, "");
  const change = (): void => {
    truncateSync(path, 5 * 2 ** 30);
    const file = openSync(path, "r+");
    writeSync(file, "far", 5 * 2 ** 30 - 10);
    closeSync(file);
    chmodSync(path, 0o600);
    appendFileSync(path, "more");
    truncateSync(path, 4 * 2 ** 30 + 1);
  };
  equal(t, await both([...FOLDERS, ["volume/sub/large", "/vol/sub/large"]], change), 8);
  t.is(await scratch.sh("one", "stat -c %s /vol/sub/large"), String(4 * 2 ** 30 + 1));
  unlinkSync(path);
});

test.serial("dnotify, which was before inotify, hears of what the host and the container make", async (t) => {
  t.timeout(hangLimitMs);
  const heard = watcher(scratch.spawn(["exec", "one", "/bin/dnotify", "/vol/sub"]));
  await heard.ready;
  writeFileSync(host("volume/sub/dnotify-host"), "");
  await until(() => heard.lines.length > 1, "what the host has made");
  await scratch.sh("one", ": >/vol/sub/dnotify-guest");
  await heard.ended;
  t.deepEqual(heard.lines, ["watching", "made", "made"]);
});

test.serial("what a container does is told once, as without a host", async (t) => {
  t.timeout(hangLimitMs);
  const inGuest = watcher(scratch.spawn(["exec", "one", "/bin/watch-events", "/vol", "/vol/sub"]));
  await inGuest.ready;
  await scratch.sh("one", "echo a > /vol/sub/own; chmod 600 /vol/sub/own; mv /vol/sub/own /vol/own; rm /vol/own; mkdir /vol/dir; rmdir /vol/dir");
  appendFileSync(host("volume/sub/from-host"), "x");
  await after(500);
  writeFileSync(host("volume/end"), "");
  await inGuest.ended;
  unlinkSync(host("volume/end"));
  t.deepEqual(inGuest.lines.slice(1), [
    ...["2 CREATE own", "2 MODIFY own", "2 CLOSE_WRITE own", "2 ATTRIB own", "2 MOVED_FROM cookie own", "1 MOVED_TO cookie own", "1 DELETE own"],
    ...["1 CREATE ISDIR dir", "1 DELETE ISDIR dir", "2 CREATE from-host", "2 MODIFY from-host", "2 CLOSE_WRITE from-host"],
  ]);
});

test.serial("replays change nothing on the host", (t) => {
  t.is(readFileSync(host("volume/sub/from-host"), "utf8"), "x");
  t.is(readFileSync(host("one-file"), "utf8"), "one filemore");
});
