/**
 * What containers write to their root filesystems, the guest keeps for a while: when the host has it, by which call its refusal is told, and that
 * nothing is lost by it. What it is like to processes of the pod is in files.test.ts.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { Dialogue } from "../helpers/dialogue.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { TEST_DISK } from "../helpers/host.ts";
import { HostMounts } from "../helpers/host-mounts.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { describe, hangLimitMs, Scratch } from "../helpers/tskata.ts";
import { until } from "../helpers/waits.ts";

const scratch = new Scratch("writeback");
const host = (path: string): string => join(scratch.folder, path);
const root = (path: string): string => host(`bundle-0/rootfs/${path}`);
const program = host("fsops");
const hostMounts = new HostMounts();
/** Longer than anything written may wait (agent/init/mounts.ts). */
const SETTLED_MS = 2500;

test.after.always("clean up", async () => {
  await scratch.cleanUp().catch(() => {});
  hostMounts.unmountAll();
  await scratch.cleanUp();
});

/** Starts a program in a container and waits for its first line. */
async function started(id: string, ...args: string[]): Promise<{ end: () => Promise<void> }> {
  const child = scratch.spawn(["exec", id, ...args]);
  const over = new Promise((done) => child.once("close", done));
  await new Promise((done) => child.stdout?.once("data", done));
  return {
    end: async () => {
      child.stdin?.end();
      await over;
    },
  };
}

const shell = async (line: string): ReturnType<typeof started> => await started("one", "sh", "-c", line);

test.before("the pod", async (t) => {
  t.timeout(hangLimitMs);
  buildFixture("fsops", program);
  await startPod(scratch, "one");
  spawnSync("cp", [program, root("bin/fsops")]);
});

test.serial("a file that was closed is whole on the host, whoever goes on running", async (t) => {
  t.timeout(hangLimitMs);
  const { end } = await shell(
    "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done >/closed; mkdir /folder; mv /closed /folder/closed; echo ready; cat",
  );
  t.is(readFileSync(root("folder/closed"), "utf8").trimEnd().split("\n").at(-1), "line 999");
  await end();
});

test.serial("one that is open and written is there after a second", async (t) => {
  t.timeout(hangLimitMs);
  const { end } = await shell("exec 3>/open; echo data >&3; echo ready; cat");
  await until(() => readFileSync(root("open"), "utf8") === "data\n", "what is in an open file is written back");
  t.pass();
  await end();
});

test.serial("a paused container's files are whole, and none of it comes later", async (t) => {
  t.timeout(hangLimitMs);
  const { end } = await started("one", "fsops", "--grow", "/grown");
  await scratch.ok(["pause", "one"]);
  const atOnce = readFileSync(root("grown"), "utf8");
  t.true(atOnce.length > 31_000 && atOnce.length % 31 === 0, `${atOnce.length} bytes`);
  await after(SETTLED_MS);
  t.is(readFileSync(root("grown"), "utf8").length, atOnce.length);
  await scratch.ok(["resume", "one"]);
  await scratch.ok(["exec", "one", "killall", "fsops"]);
  await end();
});

test.serial("when a container's end is told, all that it wrote is there", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "one");
  await scratch.running("ended", (spec) => {
    joined(spec);
    spec.process.args = ["sh", "-c", "cp /grow/fsops /fsops; exec /fsops --grow /grown"];
    spec.mounts.push({ destination: "/grow", type: "bind", source: host("bundle-0/rootfs/bin"), options: ["bind"] });
  });
  const grown = host("bundle-1/rootfs/grown");
  await until(() => existsSync(grown) && statSync(grown).size > 31_000, "it writes");
  await scratch.ok(["kill", "ended", "KILL"]);
  await scratch.until("ended", "stopped");
  const { size } = statSync(grown);
  await after(SETTLED_MS);
  t.is(statSync(grown).size, size);
  await scratch.ok(["delete", "ended"]);
});

test.serial("what the host puts in the place of a file is seen by its name after five seconds", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("one", "echo guest >/replaced; cat /replaced"), "guest");
  writeFileSync(root("new"), "the host's\n");
  renameSync(root("new"), root("replaced"));
  await after(6000);
  t.is(await scratch.sh("one", "cat /replaced; echo more >>/replaced; cat /replaced"), "the host's\nthe host's\nmore");
  t.is(readFileSync(root("replaced"), "utf8"), "the host's\nmore\n");
});

test.serial("what the host writes into a file that the guest knows is seen then, too, and appended to in its place", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("one", "echo guest >/edited; cat /edited"), "guest");
  writeFileSync(root("edited"), "a good deal longer\n");
  await after(6000);
  t.is(await scratch.sh("one", "cat /edited; echo more >>/edited"), "a good deal longer");
  t.is(readFileSync(root("edited"), "utf8"), "a good deal longer\nmore\n");
});

/** `fsops --durable`: each way to have what was written durable, in its order. */
const WAYS = "write,fsync,fdatasync,syncfs,sync,sync_file_range,RWF_DSYNC,O_SYNC,O_DSYNC,O_DIRECT,msync,fsync of the folder".split(",");
const BLOCK = 4096;

test.serial("what is written and synced, by whichever call that promises it, is the host's when that returns; the file stays open", async (t) => {
  t.timeout(hangLimitMs);
  const file = root("durable");
  const writer = new Dialogue(scratch.spawn(["exec", "one", "fsops", "--durable", "/durable"]));
  for (let turn = 0; turn < 10; turn++) {
    for (const [index, way] of WAYS.entries()) {
      t.is(await writer.ask(), `${way} ${turn}: ok`);
      // Of a write it is there after a second; sync_file_range has it sent and waits for no answer, for FUSE's pages count as written once they are copied.
      if (way === "write" || way === "sync_file_range") continue;
      if (way === "fsync of the folder") t.true(existsSync(`${file}-${turn}`), `${way} ${turn}`);
      else t.is(textAt(file, index * BLOCK), `${way} ${turn}`);
    }
  }
  await writer.end();
});

function textAt(file: string, offset: number): string {
  const text = readFileSync(file).subarray(offset, offset + BLOCK);
  return text.subarray(0, text.indexOf(0)).toString();
}

/** Requests that a disk has been sent, writes and flushes: Documentation/block/stat.rst of Linux. */
function requestsOf(disk: string): { writes: number; flushes: number } {
  const numbers = readFileSync(`/sys/block/${disk}/stat`, "utf8").trim().split(/\s+/).map(Number);
  return { writes: numbers[4] ?? 0, flushes: numbers[15] ?? 0 };
}

/** What the host's disk is sent by it. Nothing by "write" is what shows that the others' requests are theirs. */
const SENT: Readonly<Record<string, "nothing" | "a write" | "a flush">> = {
  write: "nothing",
  sync_file_range: "nothing", // at most the host's page cache has it
  O_DIRECT: "a write",
};

test.serial("what is synced is on the host's disk, of volumes and of what the guest keeps back", async (t) => {
  t.timeout(hangLimitMs);
  const [image, disk] = [host("disk.img"), host("disk")];
  spawnSync("truncate", ["-s", "64M", image]);
  spawnSync("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image]);
  // Nothing comes to this disk of itself within the test's time: the journal is not written for ten minutes.
  hostMounts.mount(disk, "-o", "loop,commit=600,noatime", image);
  t.teardown(() => hostMounts.unmountAll());
  const device = basename(spawnSync("findmnt", ["-n", "-o", "SOURCE", disk], { encoding: "utf8" }).stdout.trim());
  for (const folder of ["volume", "own"]) mkdirSync(join(disk, folder));
  const joined = await joinPod(scratch, "one");
  await scratch.running("durable", (spec) => {
    joined(spec);
    for (const folder of ["volume", "own"]) spec.mounts.push({ destination: `/${folder}`, type: "bind", source: join(disk, folder), options: ["bind"] });
    spec.mounts.push({ destination: "/programs", type: "bind", source: host("bundle-0/rootfs/bin"), options: ["bind"] });
    spec.annotations = { ...spec.annotations, "io.tskata.own-volumes": "/own" };
  });
  for (const folder of ["volume", "own"]) {
    const writer = new Dialogue(scratch.spawn(["exec", "durable", "/programs/fsops", "--durable", `/${folder}/file`]));
    for (let turn = 0; turn < 3; turn++) {
      for (const way of WAYS) {
        spawnSync("sync", ["-f", disk]); // what an earlier turn left
        const before = requestsOf(device);
        t.is(await writer.ask(), `${way} ${turn}: ok`);
        const after = requestsOf(device);
        const [writes, flushes] = [after.writes - before.writes, after.flushes - before.flushes];
        const what = `${way} ${turn} on /${folder}: ${writes} writes, ${flushes} flushes`;
        const expected = SENT[way] ?? "a flush";
        if (expected === "nothing") t.deepEqual([writes, flushes], [0, 0], what);
        else t.true((expected === "a write" ? writes : flushes) > 0, what);
      }
    }
    await writer.end();
  }
  await scratch.ok(["delete", "--force", "durable"]);
});

test.serial("a container of little memory writes more than it has", async (t) => {
  t.timeout(hangLimitMs);
  const joined = await joinPod(scratch, "one");
  const bundle = await scratch.running("little", (spec) => {
    joined(spec);
    spec.linux.resources = { ...spec.linux.resources, memory: { limit: 24 * 2 ** 20 } };
  });
  const outcome = await scratch.exec("little", ["dd", "if=/dev/zero", "of=/big", "bs=4k", "count=25600"]);
  t.is(outcome.code, 0, describe(outcome));
  t.is(statSync(join(bundle, "rootfs/big")).size, 100 * 2 ** 20);
  t.is((await scratch.state("little")).status, "running");
  await scratch.ok(["delete", "--force", "little"]);
});

test.serial("a full root filesystem is told by close and fsync", async (t) => {
  t.timeout(hangLimitMs);
  const rootfs = host("bundle-full/rootfs");
  const joined = await joinPod(scratch, "one");
  hostMounts.mount(rootfs, "-t", "tmpfs", "-o", "size=8m", TEST_DISK);
  t.teardown(() => hostMounts.unmountAll());
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    spec.process.args = ["sleep", "100000"];
  }, "bundle-full");
  spawnSync("cp", [program, join(rootfs, "bin/fsops")]);
  await scratch.create("full", bundle);
  await scratch.ok(["start", "full"]);
  t.regex(await scratch.sh("full", "fsops --overfill /fill 16"), /^write: (ok|ENOSPC)\nclose: ENOSPC$/);
  const synced = await scratch.exec("full", ["dd", "if=/dev/zero", "of=/synced", "bs=4k", "count=4000", "conv=fsync"]);
  t.not(synced.code, 0);
  t.regex(synced.stderr, /No space left/);
  await scratch.sh("full", "rm /fill /synced; echo fits >/fits");
  t.is(readFileSync(join(rootfs, "fits"), "utf8"), "fits\n");
  await scratch.ok(["delete", "--force", "full"]);
});

test.serial("without writeback every write is the host's at once", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.ok(["delete", "--force", "one"]);
  const env = { TSKATA_CONFIG: scratch.config("through", "[sandbox]\nwriteback = false") };
  await scratch.running("through", () => {}, env);
  const { end } = await started("through", "sh", "-c", "exec 3>/open; echo data >&3; echo ready; cat");
  const bundle = readFileSync(join(scratch.root, "through/state.json"), "utf8");
  t.is(readFileSync(join((JSON.parse(bundle) as { bundle: string }).bundle, "rootfs/open"), "utf8"), "data\n");
  await end();
  await scratch.ok(["delete", "--force", "through"]);
  t.deepEqual(await scratch.settledLeftovers(), []);
});
