/** scripts/testbed: the archive it boots from, the order of modules, its command line and what it makes of the ports' bytes. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { cpio } from "../../scripts/testbed/cpio.ts";
import { loadOrder } from "../../scripts/testbed/kernel.ts";
import { commandScript, qemuArguments, shareArguments, shellQuote } from "../../scripts/testbed/machine.ts";
import { MarkedStream } from "../../scripts/testbed/marked-stream.ts";
import { parseCommandLine } from "../../scripts/testbed.ts";

test("another program unpacks the archive: files, modes, folders on the way", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tskata-cpio-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const files = [
    { path: "init", data: "#!/bin/sh\n", mode: 0o755 },
    { path: "a/b/odd", data: new Uint8Array([0, 1, 255]) },
    { path: "a/empty", data: "" },
  ];
  const { status, stderr } = spawnSync("busybox", ["cpio", "-i", "-d"], { cwd: folder, input: cpio(files, ["proc"]), encoding: "utf8" });
  t.is(status, 0, stderr);
  for (const { path, data } of files) t.deepEqual(readFileSync(join(folder, path)), Buffer.from(data));
  t.is(statSync(join(folder, "init")).mode & 0o777, 0o755);
  t.is(statSync(join(folder, "a/b/odd")).mode & 0o777, 0o644);
  t.true(statSync(join(folder, "proc")).isDirectory());
});

const dependencies = "kernel/x/kvm-amd.ko: kernel/x/kvm.ko kernel/irqbypass.ko\nkernel/x/kvm.ko: kernel/irqbypass.ko\nkernel/irqbypass.ko:\nkernel/tun.ko:\n";

const MODULES = { dependencies, builtIn: "kernel/fs/ext4/ext4.ko\n" };

test("modules come after what they need, each once, and nothing else comes", (t) => {
  const order = ["kernel/irqbypass.ko", "kernel/x/kvm.ko", "kernel/x/kvm-amd.ko"];
  t.deepEqual(loadOrder(["kvm_amd", "kvm"], MODULES), order);
  t.deepEqual(loadOrder(["kvm-amd"], MODULES), order);
  t.deepEqual(loadOrder(["ext4", "tun"], MODULES), ["kernel/tun.ko"]);
  t.throws(() => loadOrder(["9p"], MODULES), { message: /no module "9p"/ });
});

test("a marked stream gives what is between the markers, however it is cut", (t) => {
  const marker = "0ab0ab1";
  fc.assert(
    fc.property(fc.array(fc.constantFrom("0", "a", "b", "1", "0a", "0ab", "\0", "\xff")), fc.array(fc.nat(40)), (words, cuts) => {
      const inside = Buffer.from(words.join(""), "latin1");
      fc.pre(!inside.includes(marker));
      const bytes = Buffer.concat([Buffer.from(marker), inside, Buffer.from(`${marker}7\n`)]);
      // The stream's end can make a marker with the bytes before it only earlier than it is; random markers do not overlap so.
      fc.pre(bytes.indexOf(marker, marker.length) === marker.length + inside.length);
      const got: Buffer[] = [];
      const stream = new MarkedStream(marker, (part) => got.push(Buffer.from(part)));
      let at = 0;
      for (const cut of [...cuts, bytes.length]) {
        if (at < bytes.length) stream.push(bytes.subarray(at, at + cut));
        at += cut;
      }
      if (at < bytes.length) stream.push(bytes.subarray(at));
      return Buffer.concat(got).equals(inside) && stream.begun && stream.tail === "7\n";
    }),
  );
  t.pass();
});

test("before the end nothing is held back but a possible marker's begin", (t) => {
  const got: string[] = [];
  const stream = new MarkedStream("mark", (part) => got.push(part.toString()));
  stream.push(Buffer.from("noise"));
  t.false(stream.begun);
  for (const part of ["ma", "rkhello ma", "n m"]) stream.push(Buffer.from(part));
  t.deepEqual([stream.begun, stream.tail, got.join("")], [true, undefined, "hello man "]);
});

test("words reach the command as they are", (t) => {
  const words = ["it's", "$HOME", "a b", "", "`x`", "\\", "line\nline"];
  const script = commandScript({ command: ["printf", "%s|", ...words], cwd: "/tmp", env: { ODD: "'$x'" } });
  t.is(spawnSync("sh", ["-c", script], { encoding: "utf8" }).stdout, words.map((word) => `${word}|`).join(""));
  t.true(script.includes(`export ODD=${shellQuote("'$x'")}`));
  t.throws(() => commandScript({ command: ["true"], cwd: "/", env: { "A B": "" } }), { message: /"A B" is no name/ });
});

test("the machine: size, one device a share, and the root cannot be written", (t) => {
  const machine = {
    qemu: { program: "qemu", arguments: [] },
    kernel: "/k",
    initramfs: "/i",
    memoryMib: 512,
    vcpus: 3,
    shares: { host: "/t/a,b", results: "/t/r" },
    devices: ["-device", "virtio-9p-pci"],
  };
  const args = qemuArguments({ ...machine, accelerator: "kvm" });
  const valuesOf = (name: string, of = args): string[] => of.flatMap((word, index) => (of[index - 1] === name ? [word] : []));
  t.deepEqual([valuesOf("-smp"), valuesOf("-m")], [["3"], ["512M"]]);
  t.false(valuesOf("-append").join().includes("isolcpus"));
  t.true(valuesOf("-chardev").includes("socket,id=host,path=/t/a,,b"));
  t.is(valuesOf("-device").filter((words) => words.startsWith("vhost-user-fs-pci,")).length, 2);
  t.is(valuesOf("-device").at(-1), "virtio-9p-pci");
  t.true(shareArguments("/s", "/", false).join(" ").includes("remount,bind,ro"));
  t.false(shareArguments("/s", "/r", true).join(" ").includes("remount"));
  const emulated = qemuArguments({ ...machine, accelerator: "tcg" });
  t.deepEqual(valuesOf("-smp", emulated), ["4"], "and one on which nothing runs");
  t.regex(valuesOf("-append", emulated).join(), /\bisolcpus=0$/);
});

test("the command line: our options end where the command begins", (t) => {
  const { quiet, ...options } = parseCommandLine([
    "--memory",
    "100",
    "--vcpus",
    "1",
    "--timeout",
    "9",
    "--env",
    "A=b=c",
    "--env",
    "D=",
    "--",
    "sh",
    "--results",
    "x",
  ]);
  t.false(quiet);
  t.deepEqual(options, { command: ["sh", "--results", "x"], memoryMib: 100, vcpus: 1, timeoutMs: 9000, env: { A: "b=c", D: "" } });
  t.deepEqual(parseCommandLine(["ls", "--env", "-l"]).command, ["ls", "--env", "-l"]);
  t.throws(() => parseCommandLine(["--memory", "lots", "ls"]), { message: /--memory must be a whole number/ });
  t.throws(() => parseCommandLine(["--env", "A", "ls"]), { message: /NAME=VALUE/ });
  t.throws(() => parseCommandLine(["--timeout", "1"]), { message: /no command/ });
});
