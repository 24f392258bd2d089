/**
 * What a filesystem of the host does on the host, the shared tree does in a container: test/fixtures/fsops.c runs on both and says what it
 * sees, and no expectation is written by hand. Where they differ by nature, exactly that difference is here and in docs/files.md.
 */
import { spawn } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { Dialogue } from "../helpers/dialogue.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { Fsops } from "../helpers/fsops.ts";
import { TEST_DISK } from "../helpers/host.ts";
import { HostMounts } from "../helpers/host-mounts.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { run } from "../helpers/run.ts";
import { amount, describe, hangLimitMs, outcomeOf, Scratch, type Spec } from "../helpers/tskata.ts";

const full = process.env["TSKATA_TEST_FULL"] === "1";
const scratch = new Scratch("files");
const fsops = new Fsops(scratch);
const { program } = fsops;
const host = (path: string): string => fsops.host(path);
const hostMounts = new HostMounts();
/** The pod's own. */
const EMPTY_DIR = "pods/uid/volumes/kubernetes.io~empty-dir/own";

test.after.always("clean up", async () => {
  await scratch.cleanUp().catch(() => {});
  hostMounts.unmountAll();
  await scratch.cleanUp();
});

test.before("the pod: two containers with volumes in common, one whose root filesystem is an overlay", async (t) => {
  t.timeout(hangLimitMs * 3);
  buildFixture("fsops", program);
  for (const folder of ["nested/plain", "outer", "inner", "tree/point"]) mkdirSync(host(folder), { recursive: true });
  for (const folder of ["volume/work", `${EMPTY_DIR}/work`, "reference"]) fsops.makePlace(host(folder));
  writeFileSync(host("file"), "one file");
  // A shared mount, as everything is where systemd has set the host up; with another below it.
  hostMounts.mount(host("nested"), "-t", "tmpfs", TEST_DISK);
  run("mount", ["--make-shared", host("nested")]);
  mkdirSync(host("nested/plain/below"), { recursive: true });
  hostMounts.mount(host("nested/plain"), "-t", "tmpfs", TEST_DISK);
  writeFileSync(host("nested/plain/deep"), "deep");
  hostMounts.mount(host("small"), "-t", "tmpfs", "-o", "size=3m", TEST_DISK);
  const one = (spec: Spec): void =>
    fsops.container(spec, [
      ["volume", "/vol"],
      [EMPTY_DIR, "/own"],
      ["file", "/etc/one-file"],
      ["volume", "/vol-ro", "bind", "ro"],
      ["nested", "/nested-bind"],
      ["nested", "/nested-rbind", "rbind"],
      ["nested", "/nested-rro", "rbind", "rro"],
      ["nested", "/nested-slave", "rbind", "rslave"],
      ["nested", "/nested-ro", "rbind", "ro"],
      ["outer", "/outer"],
      ["inner", "/outer/inside/inner"],
      ["small", "/small"],
    ]);
  await startPod(scratch, "one", one);
  const joined = await joinPod(scratch, "one");
  await scratch.running("two", (spec) => {
    joined(spec);
    fsops.container(spec, [
      ["volume", "/vol"],
      ["volume", "/vol-ro", "bind", "ro"],
    ]);
  });
  for (const bundle of ["bundle-0", "bundle-1"]) fsops.addTo(host(`${bundle}/rootfs`));
  await startOnOverlay(joined);
});

async function startOnOverlay(joined: (spec: Spec) => void): Promise<void> {
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    fsops.container(spec, [["layered-volume/rootfs", "/vol"]]);
    spec.process.args = ["sleep", "100000"];
  }, "layered");
  renameSync(join(bundle, "rootfs"), host("lower"));
  fsops.addTo(host("lower"));
  for (const folder of ["layered", "layered-volume", "layered-reference"]) hostMounts.overlay(host("lower"), host(folder), TEST_DISK);
  await scratch.create("layered", bundle);
  await scratch.ok(["start", "layered"]);
}

// -- the same as the host ----------------------------------------------------------------------------------------------------

const CASES = [
  ..."links renames exchanges unlinked tmpfile names opens permissions append direct seek syncs unsynced mixed fallocate shift copies large maps".split(" "),
  ..."xattrs capabilities trusted acls times birth setid locks folders special filesystem ioctls lower".split(" "),
];

/** Where the program runs on the host. */
const REFERENCES = { folder: "reference", overlay: "layered-reference/rootfs/work" };

interface Place {
  readonly name: string;
  readonly as: keyof typeof REFERENCES;
  readonly container: string;
  readonly folder: string;
  /** The guest keeps back what is written. */
  readonly kept: boolean;
}
const PLACES: readonly Place[] = [
  { name: "root filesystem", as: "folder", container: "one", folder: "/work", kept: true },
  { name: "the pod's own volume", as: "folder", container: "one", folder: "/own/work", kept: true },
  { name: "volume", as: "folder", container: "one", folder: "/vol/work", kept: false },
  { name: "overlay as the root filesystem", as: "overlay", container: "layered", folder: "/work", kept: true },
  { name: "overlay as a volume", as: "overlay", container: "layered", folder: "/vol/work", kept: false },
];

/** Lines of the host's that read differently in the guest. */
type Changes = Readonly<Record<string, (host: string) => string>>;

/** What is otherwise where the guest keeps writes back, on a root filesystem and a volume of the pod's own. Reasons: docs/files.md. */
const DIFFERENT_WHERE_KEPT: Changes = {
  large: (text) => text.replace(/^(pwrite\(fd, "x", 1, 1ll << 60\)): EFBIG$/m, "$1: ok"),
  times: (text) => text.replace(/^(read\(fd, &byte, 1\)): atime 1/m, "$1: atime 0"),
};
/** And those whose files' blocks, as they were some seconds ago there, are not compared. */
const OPEN_FILES = ["seek", "large"];

/** What is otherwise in a guest, by its nature. Reasons: docs/files.md. */
const DIFFERENT: Changes = {
  trusted: () => told.get("folder without CAP_SYS_ADMIN")?.get("trusted") ?? "",
  ioctls: (text) => text.replace(/(FS_IOC_GETFLAGS, &flags\)): \w+$/m, "$1: ENOTTY").replace(/(FICLONE, .*\)): \w+$/m, "$1: EOPNOTSUPP"),
};

/** What is otherwise on an overlay of the host's, where that is not what other filesystems do. Reasons: docs/files.md. */
const DIFFERENT_ON_OVERLAY: Changes = {
  lower: (text) => text.replace(/^(mapped before the first change): lower$/m, "$1: WRITE"),
};

/** What the program said, by place, then by case. */
const told = new Map<string, Map<string, string>>();

/** "== CASE" and its lines. */
function sections(text: string): Map<string, string> {
  return new Map(
    text.split("== ").map((part) => {
      const end = part.indexOf("\n");
      return [part.slice(0, end), part.slice(end + 1)];
    }),
  );
}

test.serial("the program runs on the host, on an overlay there, and in the guest on root filesystems and volumes of each kind", async (t) => {
  t.timeout(hangLimitMs * 4);
  for (const [kind, folder] of Object.entries(REFERENCES)) told.set(kind, sections(run(program, [host(folder)])));
  // Of a process on the host that has what the file server has.
  mkdirSync(host("without-sys-admin"));
  told.set("folder without CAP_SYS_ADMIN", sections(run("setpriv", ["--bounding-set", "-sys_admin", program, host("without-sys-admin"), "trusted"])));
  for (const { name, container, folder } of PLACES) {
    // What a run has done wrong on purpose is told by one syncfs later, of whichever of these trees (docs/files.md): not by that of the next run.
    told.set(name, sections(await scratch.sh(container, `fsops ${folder}; sync -f ${folder} || true`)));
  }
  for (const kind of Object.keys(REFERENCES)) t.deepEqual([...(told.get(kind)?.keys() ?? [])].slice(1), CASES, kind);
});

test.serial("the host's filesystem has what is compared, so that no case is equal because both sides have nothing", (t) => {
  const onHost = (name: string): string => told.get("folder")?.get(name) ?? "";
  t.regex(onHost("tmpfile"), /^O_TMPFILE: ok$/m);
  t.regex(onHost("tmpfile"), /^named holds temporary$/m);
  t.regex(onHost("xattrs"), /^f user\.b: 72 65 70 6c 61 63 65 64$/m);
  t.regex(onHost("acls"), /^setxattr\("f", "system\.posix_acl_access", &acl, sizeof acl, 0\): ok$/m);
  t.regex(onHost("shift"), /^collapse: ok$/m);
  t.regex(onHost("shift"), /^insert: ok$/m);
  t.regex(onHost("direct"), /^O_DIRECT: ok$/m);
});

for (const name of CASES) {
  test.serial(`${name}: as on the host`, (t) => {
    const compared = (text: string, { kept }: Place): string[] =>
      (kept && OPEN_FILES.includes(name) ? text.replace(/^(size \d+) blocks \d+$/gm, "$1") : text).trimEnd().split("\n");
    const expected = (place: Place): string =>
      [DIFFERENT, place.kept ? DIFFERENT_WHERE_KEPT : {}, place.as === "overlay" ? DIFFERENT_ON_OVERLAY : {}].reduce<string>(
        (text, changes: Changes) => changes[name]?.(text) ?? text,
        told.get(place.as)?.get(name) ?? "",
      );
    const all = (text: (place: Place) => string): [string, string[]][] => PLACES.map((place) => [place.name, compared(text(place), place)]);
    t.deepEqual(
      all((place) => told.get(place.name)?.get(name) ?? ""),
      all(expected),
    );
  });
}

test.serial("a full filesystem is ENOSPC, after as much as on the host", async (t) => {
  t.timeout(hangLimitMs);
  await fsops.fill(t, "one", host("small"), "/small");
});

test.serial("a folder of many entries is listed whole, the same as on the host, in a volume and on the root filesystem", async (t) => {
  t.timeout(hangLimitMs * 2);
  const entries = full ? 100_000 : Math.round(20_000 * amount);
  for (const [folder, inGuest] of [
    ["volume", "/vol"],
    ["bundle-0/rootfs", ""],
  ]) {
    mkdirSync(host(`${folder}/many`));
    for (let i = 0; i < entries; i++) writeFileSync(host(`${folder}/many/entry-${i}`), "");
    const expected = run(program, ["--list", host(`${folder}/many`)]).trim();
    t.regex(expected, new RegExp(`^${entries + 2} entries.* ${entries} stat as listed`));
    t.is(await scratch.sh("one", `fsops --list ${inGuest}/many`), expected, folder);
    t.is(await scratch.sh("one", `fsops --list ${inGuest}/many`), expected, `${folder} again, with what the guest knows of it by now`);
  }
});

// -- containers of a pod -----------------------------------------------------------------------------------------------------

const talk = (id: string, ...args: string[]): Dialogue => new Dialogue(scratch.spawn(["exec", id, "fsops", ...args]));

for (const kind of ["flock", "posix", "ofd"]) {
  test.serial(`${kind}: a lock of one container's is seen by another`, async (t) => {
    t.timeout(hangLimitMs);
    writeFileSync(host("volume/locked"), "0123456789012345678901234567890");
    const holder = talk("one", "--hold", kind, "/vol/locked");
    t.is(await holder.next(), "ok");
    t.is(await scratch.sh("two", `fsops --try ${kind} /vol/locked`), "EAGAIN");
    await holder.end();
    t.is(await scratch.sh("two", `fsops --try ${kind} /vol/locked`), "ok");
  });

  test.serial(`${kind}: who waits for a lock of another container's gets it by its unlock, and by its holder's death`, async (t) => {
    t.timeout(hangLimitMs);
    writeFileSync(host("volume/locked"), "0123456789012345678901234567890");
    const unlock = async (holder: Dialogue): Promise<unknown> => t.is(await holder.ask(), "unlocked: ok");
    const kill = async (): Promise<unknown> => await scratch.sh("one", "killall -9 fsops");
    for (const release of [unlock, kill]) {
      const holder = talk("one", "--hold", kind, "/vol/locked");
      t.is(await holder.next(), "ok");
      const waiter = talk("two", "--wait", kind, "/vol/locked");
      t.is(await waiter.next(), "waiting");
      let got = false;
      const lock = waiter.next().finally(() => {
        got = true;
      });
      t.is(await scratch.sh("two", `fsops --try ${kind} /vol/locked`), "EAGAIN");
      t.false(got, "it waits");
      await release(holder);
      t.is(await lock, "ok");
      await waiter.end();
      await holder.end();
    }
  });
}

test.serial("a shared mapping is one memory in both containers", async (t) => {
  t.timeout(hangLimitMs);
  writeFileSync(host("volume/mapped"), "0".repeat(4096));
  const pong = scratch.exec("two", ["fsops", "--pong", "/vol/mapped"]);
  t.is(await scratch.sh("one", "fsops --ping /vol/mapped"), "seen");
  t.is((await pong).stdout.trim(), "seen");
  t.is(await scratch.sh("one", "head -c 2 /vol/mapped"), "20");
});

test.serial("a unix socket and a FIFO in a volume connect the containers, through a read-only mount as well", async (t) => {
  t.timeout(hangLimitMs);
  for (const path of ["/vol/socket", "/vol-ro/socket"]) {
    const server = scratch.exec("one", ["fsops", "--serve", "/vol/socket"]);
    await scratch.sh("two", "while ! [ -S /vol/socket ]; do sleep 0.1; done; sleep 0.5");
    t.is(await scratch.sh("two", `fsops --call ${path}`), "connect: ok\nreceived hello");
    t.is((await server).stdout.trim(), "bind: ok\nlisten: ok");
    unlinkSync(host("volume/socket"));
  }
  await scratch.sh("one", "mkfifo /vol/fifo");
  const reader = scratch.exec("one", ["cat", "/vol/fifo"]);
  await scratch.sh("two", "echo through >/vol/fifo");
  t.is((await reader).stdout.trim(), "through");
});

test.serial("a file that both containers know is linked within each one's volume", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.sh("one", "echo content >/vol/common");
  t.is(await scratch.sh("two", "cat /vol/common && ln /vol/common /vol/by-two && cat /vol/by-two"), "content\ncontent");
  t.is(await scratch.sh("one", "ln /vol/common /vol/by-one && stat -c %h /vol/by-two"), "3");
});

// -- what the host changes ---------------------------------------------------------------------------------------------------

/** `fsops --watch`: what a file is now, by a descriptor kept from the start and by a new one; `--follow`: by the kept one alone. */
const watch = (file: string, how: "--watch" | "--follow" = "--watch"): Dialogue => talk("one", how, file);

test.serial("a volume: content, size and names that the host changes are seen at once, by open descriptors, too", async (t) => {
  t.timeout(hangLimitMs);
  const file = host("volume/live");
  writeFileSync(file, "first");
  const watcher = watch("/vol/live");
  t.is(await watcher.ask(), "kept first (5) mapped firs new first");
  writeFileSync(file, "other");
  t.is(await watcher.ask(), "kept other (5) mapped othe new other");
  appendFileSync(file, " and more");
  t.is(await watcher.ask(), "kept other and more (14) mapped othe new other and more");
  writeFileSync(file, "less");
  t.is(await watcher.ask(), "kept less (4) mapped less new less");
  writeFileSync(`${file}.new`, "another file");
  renameSync(`${file}.new`, file);
  t.is(await watcher.ask(), "kept less (4) mapped less new another file");
  unlinkSync(file);
  t.is(await watcher.ask(), "kept less (4) mapped less new ENOENT");
  writeFileSync(file, "back");
  t.is(await watcher.ask(), "kept less (4) mapped less new back");
  await watcher.end();
});

/** Until the file has another time: two changes of one tick of the host's clock cannot be told from one another (docs/files.md). */
async function change(file: number, text: string): Promise<void> {
  const time = (): bigint => fstatSync(file, { bigint: true }).mtimeNs;
  const before = time();
  for (;;) {
    writeSync(file, text, 0);
    ftruncateSync(file, text.length);
    if (time() !== before) return;
    await after(1);
  }
}

test.serial("a volume: each of many quick changes is seen at once by open descriptors, while inotify is told of those before", async (t) => {
  t.timeout(hangLimitMs);
  const path = host("volume/quick");
  writeFileSync(path, "");
  const file = openSync(path, "r+");
  try {
    const watchers = [watch("/vol/quick", "--follow"), watch("/vol/quick", "--follow")];
    const missed: string[] = [];
    for (let turn = 0; turn < 1000; turn++) {
      const text = `${turn}${"+".repeat((turn >> 1) % 5)}`; // often as long as the one before
      await change(file, text);
      const seen = await Promise.all(watchers.map(async (watcher) => await watcher.ask()));
      if (seen.some((one) => one !== text)) missed.push(`${text}: ${seen.join(", ")}`);
    }
    t.deepEqual(missed, []);
    for (const watcher of watchers) await watcher.end();
  } finally {
    closeSync(file);
  }
});

test.serial("a volume: Kubernetes' swaps of ..data are seen at once", async (t) => {
  t.timeout(hangLimitMs);
  const folder = host("volume/config");
  mkdirSync(folder);
  const publish = (version: number): void => {
    mkdirSync(join(folder, `..${version}`));
    writeFileSync(join(folder, `..${version}/key`), `version ${version}`);
    symlinkSync(`..${version}`, join(folder, "..data_tmp"));
    renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
    if (version > 1) rmSync(join(folder, `..${version - 1}`), { recursive: true });
  };
  publish(1);
  symlinkSync("..data/key", join(folder, "key"));
  const watcher = watch("/vol/config/key");
  for (let version = 1; version <= 20; version++) {
    if (version > 1) publish(version);
    t.regex(await watcher.ask(), new RegExp(`new version ${version}$`));
  }
  await watcher.end();
});

test.serial("host and guest append to one file: every record is whole and in its place", async (t) => {
  t.timeout(hangLimitMs);
  const records = 300;
  const onHost = spawn(program, ["--append", host("volume/log"), String(records), "h"], { stdio: "pipe" });
  const ended = outcomeOf(onHost, {});
  await scratch.sh("one", `fsops --append /vol/log ${records} g`);
  t.is((await ended).code, 0);
  const lines = readFileSync(host("volume/log"), "utf8").trimEnd().split("\n");
  t.is(lines.filter((line) => line === "h".repeat(31)).length, records);
  t.is(lines.filter((line) => line === "g".repeat(31)).length, records);
  t.is(lines.length, 2 * records);
  t.is(await scratch.sh("one", "cat /vol/log | md5sum"), run("sh", ["-c", `cat ${host("volume/log")} | md5sum`]).trim());
});

test.serial("the root filesystem: what the guest may keep is right again after five seconds", async (t) => {
  t.timeout(hangLimitMs);
  const file = host("bundle-0/rootfs/changed");
  writeFileSync(file, "before");
  const watcher = watch("/changed");
  t.regex(await watcher.ask(), /new before$/);
  writeFileSync(file, "afterwards");
  await after(6000);
  t.is(await watcher.ask(), "kept before (6) mapped befo new afterwards", "by its name; who has it open keeps what it was");
  await watcher.end();
});

/** How many interrupts of the guest's virtio devices, each of which tells of one or more replies, the line costs in a container's shell. */
async function interruptsOf(line: string): Promise<number> {
  const count = "awk '/virtio/ { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum }' /proc/interrupts";
  const [before = 0, after = 0] = (await scratch.sh("one", `${count}; ${line}; ${count}`)).split("\n").map(Number);
  return after - before;
}

test.serial("the root filesystem: names that are looked up one after the other are asked for together", async (t) => {
  t.timeout(hangLimitMs);
  const files = 300;
  const look = (folder: string, step = 1): string =>
    `i=${step - 1}; while [ $i -lt ${files} ]; do [ -f ${folder}/file-$i ] || exit 1; i=$((i + ${step})); done`;
  const make = (folder: string): void => {
    mkdirSync(folder);
    for (let index = 0; index < files; index++) writeFileSync(join(folder, `file-${index}`), "before");
  };
  make(host("bundle-0/rootfs/work/siblings"));
  make(host("volume/siblings"));
  t.assert((await interruptsOf(look("/vol/siblings"))) >= files, "of a volume each is asked for, each time");
  const alone = await interruptsOf(look("/work/siblings"));
  t.assert(alone < files / 2, `${alone} interrupts for ${files} names of a root filesystem`);
  // What was learned of names that nobody has asked for is no older than what was.
  await after(6000);
  for (let index = 0; index < files; index += 2) rmSync(host(`bundle-0/rootfs/work/siblings/file-${index}`));
  for (let index = 1; index < files; index += 2) writeFileSync(host(`bundle-0/rootfs/work/siblings/file-${index}`), "longer than before");
  const told = await scratch.sh(
    "one",
    `i=0; while [ $i -lt ${files} ]; do [ -e /work/siblings/file-$i ] && stat -c %s /work/siblings/file-$i; i=$((i + 1)); done`,
  );
  t.is(told, Array.from({ length: files / 2 }, () => "18").join("\n"), "the half that is left, with its new size");
  await after(6000);
  const again = await interruptsOf(look("/work/siblings", 2));
  t.assert(again < files / 4, `${again} interrupts for ${files / 2} names once what was known of them is too old`);
});

test.serial("processes that look up, make, rename and remove names of the same folders find what is there", async (t) => {
  t.timeout(2 * hangLimitMs);
  const [folders, files] = [Math.max(2, Math.round(20 * amount)), 100];
  for (let folder = 0; folder < folders; folder++) {
    mkdirSync(host(`bundle-0/rootfs/work/crowd/${folder}`), { recursive: true });
    for (let file = 0; file < files; file++) writeFileSync(host(`bundle-0/rootfs/work/crowd/${folder}/${file}`), Buffer.alloc(file));
  }
  t.is(await scratch.sh("one", `fsops --crowd /work/crowd ${folders} ${files}`), "0 wrong");
});

// -- volumes -----------------------------------------------------------------------------------------------------------------

test.serial("a file is bound: read, written, not removed", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("one", "cat /etc/one-file && echo changed >/etc/one-file && cat /etc/one-file"), "one filechanged");
  t.is(readFileSync(host("file"), "utf8"), "changed\n");
  t.regex((await scratch.exec("one", ["rm", "/etc/one-file"])).stderr, /busy/);
});

test.serial("read-only: by the guest's mount, and by the host's when the guest's is made writable", async (t) => {
  t.timeout(hangLimitMs);
  const write = async (path: string): Promise<string> => (await scratch.exec("one", ["sh", "-c", `echo x >${path}`])).stderr;
  t.regex(await write("/vol-ro/new"), /Read-only file system/);
  t.is(await scratch.sh("one", "mount -o remount,rw,bind /vol-ro && echo writable"), "writable");
  t.regex(await write("/vol-ro/new"), /Read-only file system/);
  await scratch.sh("one", "mount -o remount,ro,bind /vol-ro");
});

test.serial("a bind shows its own mount, rbind those below it; ro and rro are read-only in all of them", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("one", "ls /nested-bind/plain"), "below");
  t.is(await scratch.sh("one", "cat /nested-rbind/plain/deep"), "deep");
  await scratch.sh("one", "echo new >/nested-rbind/plain/new");
  t.is(readFileSync(host("nested/plain/new"), "utf8"), "new\n");
  for (const path of ["/nested-ro/x", "/nested-ro/plain/x", "/nested-rro/x", "/nested-rro/plain/x"]) {
    t.regex((await scratch.exec("one", ["touch", path])).stderr, /Read-only file system/, path);
  }
  t.is(await scratch.sh("one", "touch /outer/a /outer/inside/inner/b && ls /outer /outer/inside/inner"), "/outer:\na\ninside\n\n/outer/inside/inner:\nb");
  t.is(run("ls", [host("inner")]), "b\n");
});

test.serial("propagation: what the host mounts later comes in by rslave alone; rshared is refused with the field", async (t) => {
  t.timeout(hangLimitMs * 2);
  mkdirSync(host("nested/mounted"));
  hostMounts.mount(host("nested/mounted"), "-t", "tmpfs", TEST_DISK);
  writeFileSync(host("nested/mounted/late"), "late");
  t.is(await scratch.sh("one", "cat /nested-slave/mounted/late"), "late");
  t.is(await scratch.sh("one", "ls /nested-rbind/mounted /nested-bind/mounted"), "/nested-bind/mounted:\n\n/nested-rbind/mounted:");
  run("umount", [host("nested/mounted")]);
  t.is(await scratch.sh("one", "ls /nested-slave/mounted"), "");
  const bundle = await scratch.bundle((spec) => fsops.container(spec, [["nested", "/shared", "rbind", "rshared"]]));
  const outcome = await scratch.tryCreate("refused", bundle);
  t.not(outcome.code, 0);
  t.regex(outcome.stderr.replaceAll("\\", ""), /mounts\[\d+\]\.options: "rshared" of "\/shared" is not supported/);
});

test.serial("syncfs in the guest reaches the volumes' filesystems", async (t) => {
  t.timeout(hangLimitMs);
  const outcome = await scratch.exec("one", ["sh", "-c", "echo data >/vol/synced && sync /vol/synced && sync -f /vol/synced && sync"]);
  t.is(outcome.code, 0, describe(outcome));
});

test.serial("a container's end leaves the host's mounts below its volumes as they are", async (t) => {
  t.timeout(hangLimitMs * 2);
  for (const id of ["layered", "two", "one"]) await scratch.ok(["delete", "--force", id]);
  t.is(readFileSync(host("nested/plain/deep"), "utf8"), "deep");
  t.regex(readFileSync("/proc/self/mountinfo", "utf8"), new RegExp(` ${host("nested/plain")} `));
  t.deepEqual(scratch.leftovers(), []);
});
