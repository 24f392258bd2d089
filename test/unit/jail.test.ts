/** src/host/jail.ts: what the jail's root shows; and how the end of a jailed process is told. */
import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { logTail } from "../../src/base/log-tail.ts";
import { appendPodFile, readPodFile } from "../../src/base/pod-file.ts";
import { pidFromInside, processRef, waitStatusOf } from "../../src/base/process.ts";
import { libraryFolders, Views } from "../../src/host/jail.ts";
import { endInWords } from "../../src/lifecycle/sandbox-process.ts";
import { temporaryFolder } from "./helpers.ts";

test("a path is shown where it really is, with every link that leads there", (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, "real/deep"), { recursive: true });
  writeFileSync(join(folder, "real/deep/file"), "");
  symlinkSync("real", join(folder, "relative"));
  symlinkSync(join(folder, "relative/deep"), join(folder, "absolute"));
  const views = new Views();
  views.show("read", `${folder}/absolute/../deep/./file`);
  t.deepEqual(views.flags(), [
    ...["--link", join(folder, "absolute"), join(folder, "relative/deep")],
    ...["--read", join(folder, "real/deep/file")],
    ...["--link", join(folder, "relative"), "real"],
  ]);
});

test("what a shown folder shows is not shown again, but where it may be used otherwise", (t) => {
  const folder = temporaryFolder(t);
  for (const name of ["same", "other"]) writeFileSync(join(folder, name), "");
  symlinkSync("same", join(folder, "link"));
  const views = new Views();
  views.show("execute", folder);
  views.show("execute", join(folder, "link"));
  views.show("read", join(folder, "other"));
  views.showIfThere("read", join(folder, "missing"));
  t.deepEqual(views.flags(), ["--execute", folder, "--read", join(folder, "other")]);
});

test("a file that is not there, and links in a circle, are told by the path that was asked for", (t) => {
  const folder = temporaryFolder(t);
  symlinkSync("circle", join(folder, "circle"));
  t.throws(() => new Views().show("read", join(folder, "none")), { message: /"[^"]*\/none", which the virtual machine's process needs/ });
  t.throws(() => new Views().show("read", join(folder, "circle")), { message: /too many symbolic links/ });
});

test("libraries are looked for where this process has them", (t) => {
  const maps = [
    "7f00-7f01 r-xp 00000000 fe:00 1 /usr/lib/x86_64-linux-gnu/libc.so.6",
    "7f01-7f02 r-xp 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
    "7f02-7f03 r-xp 00000000 fe:00 3 /opt/lib/libm.so",
    "7f03-7f04 r-xp 00000000 fe:00 4 /opt/tskata/lib/node",
    "7f04-7f05 r-xp 00000000 fe:00 5 /opt/tskata/lib/tskata.node",
    "7f05-7f06 rw-p 00000000 00:00 0 [heap]",
    "7f06-7f07 rw-p 00000000 00:00 0",
  ].join("\n");
  t.deepEqual(libraryFolders(maps), ["/opt/lib", "/usr/lib/x86_64-linux-gnu"]);
  t.true(libraryFolders().length > 0);
});

test("how a sandbox process has ended, in words; the jail is named where it did it", (t) => {
  t.is(endInWords(undefined), "ended");
  t.is(endInWords(0), "exited with 0");
  t.is(endInWords(125 << 8), "exited with 125");
  t.is(endInWords(9), "was killed by SIGKILL");
  t.regex(endInWords(31), /^was killed by SIGSYS by its jail/);
  t.regex(endInWords(31 | 0x80), /^was killed by SIGSYS by its jail/, "the core flag");
});

test("a pid of this pid namespace is itself; a process that runs has no wait status", (t) => {
  t.is(pidFromInside(process.pid, process.pid), process.pid);
  t.is(pidFromInside(process.pid, 2 ** 30), undefined);
  const self = processRef(process.pid);
  t.is(self && waitStatusOf(self), undefined);
});

test("a pod's file is read and written only if it is one", (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, "file"), "0123456789");
  symlinkSync("/etc/hostname", join(folder, "link"));
  t.is(readPodFile(join(folder, "file")), "0123456789");
  t.is(readPodFile(join(folder, "file"), 4), "6789", "the end of a long one");
  t.throws(() => readPodFile(join(folder, "link")), { code: "ELOOP" });
  t.throws(() => appendPodFile(join(folder, "link")), { code: "ELOOP" });
  t.is(spawnSync("mkfifo", [join(folder, "fifo")]).status, 0);
  t.throws(() => readPodFile(join(folder, "fifo")), { message: /no regular file/ });
  t.throws(() => appendPodFile(join(folder, "fifo")), { code: "ENXIO" });
  t.throws(() => readPodFile(folder), { message: /no regular file/ });
  t.is(logTail(join(folder, "link")), "");
});
