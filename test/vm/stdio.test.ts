/** Nothing a container writes or reads is lost, whatever its size and however short the process. */
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { closeSync, createReadStream, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { native } from "../../src/native.ts";
import { amount, binary, hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("stdio");
test.after.always("clean up", async () => await scratch.cleanUp());

const mebibyte = 1024 * 1024;
/** 1 GiB, 256 MiB and 200, or the testbed's part of them. */
const outputMebibytes = 1024 * amount;
const inputMebibytes = 256 * amount;
const execs = 200 * amount;

/** Fills a file with random bytes and returns their SHA-256. */
function randomFile(file: string, mebibytes: number): string {
  const hash = createHash("sha256");
  const fd = openSync(file, "w");
  for (let written = 0; written < mebibytes; written++) {
    const block = randomBytes(mebibyte);
    hash.update(block);
    writeSync(fd, block);
  }
  closeSync(fd);
  return hash.digest("hex");
}

test.before("a container to exec in", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.running("c");
});

test.serial(`${outputMebibytes} MiB of random bytes on stdout arrive exactly`, async (t) => {
  t.timeout(900_000);
  const bundle = join(scratch.folder, "bundle-0");
  const expected = randomFile(join(bundle, "rootfs/random"), outputMebibytes);
  const child = scratch.spawn(["exec", "c", "cat", "/random"]);
  const hash = createHash("sha256");
  let bytes = 0;
  child.stdout?.on("data", (part: Buffer) => {
    bytes += part.length;
    hash.update(part);
  });
  const code = await new Promise((done) => child.once("close", done));
  t.deepEqual([code, bytes, hash.digest("hex")], [0, outputMebibytes * mebibyte, expected], scratch.logs());
  spawnSync("rm", [join(bundle, "rootfs/random")]);
});

test.serial(`${inputMebibytes} MiB on stdin go through cat exactly`, async (t) => {
  t.timeout(900_000);
  const file = join(scratch.folder, "input");
  const expected = randomFile(file, inputMebibytes);
  const child = scratch.spawn(["exec", "c", "cat"]);
  const hash = createHash("sha256");
  child.stdout?.on("data", (part: Buffer) => hash.update(part));
  if (child.stdin !== null) createReadStream(file).pipe(child.stdin);
  const code = await new Promise((done) => child.once("close", done));
  t.deepEqual([code, hash.digest("hex")], [0, expected], scratch.logs());
});

test.serial("a slow reader slows the writer and loses nothing", async (t) => {
  t.timeout(hangLimitMs);
  const child = scratch.spawn(["exec", "c", "sh", "-c", "seq 1 400000"]);
  const parts: Buffer[] = [];
  for await (const part of child.stdout ?? []) {
    parts.push(part as Buffer);
    if (parts.length < 20) await after(100);
  }
  const lines = Buffer.concat(parts).toString().trimEnd().split("\n");
  t.is(lines.length, 400_000);
  t.true(lines.every((line, index) => line === String(index + 1)));
});

test.serial(`${Math.ceil(execs)} short execs in a row each give their whole output and status`, async (t) => {
  t.timeout(900_000);
  for (let turn = 0; turn < execs; turn++) {
    const status = turn % 5;
    const outcome = await scratch.exec("c", ["sh", "-c", `echo out ${turn}; echo err ${turn} >&2; exit ${status}`]);
    t.deepEqual([outcome.code, outcome.stdout, outcome.stderr], [status, `out ${turn}\n`, `err ${turn}\n`]);
  }
});

test.serial("an exit is told though a background child keeps the pipe", async (t) => {
  t.timeout(hangLimitMs);
  const outcome = await scratch.exec("c", ["sh", "-c", "sleep 100000 >/dev/null 2>&1 & echo started; exit 3"]);
  t.deepEqual([outcome.code, outcome.stdout], [3, "started\n"]);
});

test.serial("a closed stdin ends the reader", async (t) => {
  t.timeout(hangLimitMs);
  const outcome = await scratch.exec("c", ["sh", "-c", "cat >/dev/null; echo ended"]);
  t.deepEqual([outcome.code, outcome.stdout], [0, "ended\n"]);
});

test.serial("a terminal has the caller's size, and a resize reaches it", async (t) => {
  t.timeout(hangLimitMs);
  const { master, slave } = native().openHostPty();
  native().setWindowSize(master, 31, 97);
  const script = "stty size; while ! stty size | grep -q '40 120'; do sleep 0.1; done; stty size; tty; exit 5";
  const child = spawn("setsid", ["-c", "-w", binary, "--root", scratch.root, "exec", "-t", "c", "sh", "-c", script], {
    stdio: [slave, slave, slave],
  });
  native().closeFd(slave);
  let seen = "";
  const reader = createReadStream("", { fd: master, autoClose: false });
  reader.on("error", () => {}); // EIO: the last holder of the other end is gone
  reader.on("data", (part) => {
    const before = seen;
    seen += part.toString();
    if (!before.includes("31 97") && seen.includes("31 97")) native().setWindowSize(master, 40, 120);
  });
  const code = await new Promise((done) => child.once("exit", done));
  await after(200);
  reader.destroy(); // the descriptor stays open: a read of it may still be under way in a thread
  t.regex(seen, /31 97\r\n40 120\r\n\/dev\/pts\/\d+\r\n/);
  t.is(code, 5, seen);
});
