/** The addon's relays, bridge and listeners (src/native.ts): every byte arrives, and every end is told. */
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, readdirSync, readSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import test, { type ExecutionContext } from "ava";
import { native } from "../../src/native.ts";
import { repository, runProgram, temporaryFolder } from "./helpers.ts";

const WRITE_ALL = 3_000_001;
/** More than a pipe and a socket's buffers hold. */
const TOO_MUCH = 2 * 1024 * 1024;

/** A socket of node's over a descriptor, whose end the test decides. */
function open(t: ExecutionContext, fd: number, ways: { readable: boolean; writable: boolean } = { readable: true, writable: true }): Socket {
  const socket = new Socket({ fd, ...ways, allowHalfOpen: true }).on("error", () => {});
  t.teardown(() => socket.destroy());
  return socket;
}

async function readAll(socket: Socket): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function read(fd: number): string {
  const buffer = Buffer.alloc(1000);
  return buffer.toString("latin1", 0, readSync(fd, buffer));
}

const pairs = {
  pipe: (): [number, number] => native().pipe(),
  socketpair: (): [number, number] => native().socketpair("stream"),
};

for (const [from, source] of Object.entries(pairs)) {
  for (const [to, destination] of Object.entries(pairs)) {
    test(`${from} to ${to}: all bytes arrive, then the end`, async (t) => {
      const [first, last] = [source(), destination()];
      const relay = native().relay(first[0], last[1]);
      const [input, output] = [open(t, first[1], { readable: false, writable: true }), open(t, last[0], { readable: true, writable: false })];
      const bytes = randomBytes(WRITE_ALL);
      const received = readAll(output);
      input.end(bytes);
      t.is(await relay.ended, null);
      // A destination that is a socket ends when its last descriptor does: the relay's was it.
      t.true(bytes.equals(await received));
      t.is(relay.moved, BigInt(WRITE_ALL));
      t.is(await relay.drained(), BigInt(WRITE_ALL));
      await relay.reached(1n << 60n);
    });
  }
}

for (const patient of [false, true]) {
  test(`a terminal's pages, gathered: all bytes arrive, then the end${patient ? "; by a patient relay" : ""}`, async (t) => {
    const { master, slave } = native().openHostPty();
    const [first, last] = [native().pipe(), native().socketpair("stream")];
    const into = native().relay(first[0], slave);
    const out = native().relay(master, last[1], patient);
    const input = open(t, first[1], { readable: false, writable: true });
    const bytes = randomBytes(WRITE_ALL);
    const received = readAll(open(t, last[0], { readable: true, writable: false }));
    input.end(bytes);
    t.is(await into.ended, null);
    t.is(await out.ended, null);
    t.true(bytes.equals(await received));
  });
}

test("a terminal's end of file behind a long line, which is told once, ends the relay when the line is out", async (t) => {
  const { master, slave } = native().openHostPty();
  t.teardown(() => closeSync(master));
  spawnSync("stty", ["sane"], { stdio: [slave, "ignore", "inherit"] });
  const [output, destination] = native().pipe();
  const line = `${"x".repeat(3000)}\n`;
  writeSync(master, `${line}\x04`);
  const relay = native().relay(slave, destination);
  t.is(await relay.ended, null);
  t.is((await readAll(open(t, output, { readable: true, writable: false }))).toString(), line);
});

test("reached: told when so many bytes have been written, not before", async (t) => {
  const [first, last] = [native().pipe(), native().pipe()];
  const relay = native().relay(first[0], last[1]);
  let told = false;
  const five = relay.reached(5n).then(() => (told = true));
  await relay.reached(0n);
  writeSync(first[1], "1234");
  await relay.reached(4n);
  t.false(told);
  writeSync(first[1], "5");
  await five;
  t.is(relay.moved, 5n);
  t.is(read(last[0]), "12345");
  const never = relay.reached(100n);
  closeSync(first[1]);
  await never;
  t.is(await relay.ended, null);
  closeSync(last[0]);
});

test("drained: what was written before is counted, although the source stays open", async (t) => {
  const [first, last] = [native().pipe(), native().pipe()];
  const relay = native().relay(first[0], last[1]);
  t.is(await relay.drained(), 0n);
  for (let round = 1; round <= 50; round++) {
    writeSync(first[1], "x".repeat(100));
    t.is(await relay.drained(), BigInt(round * 100));
  }
  t.deepEqual(await Promise.all([relay.drained(), relay.drained()]), [5000n, 5000n]);
  relay.stop();
  t.is(await relay.ended, "ECANCELED");
  t.is(await relay.drained(), 5000n);
  for (const fd of [first[1], last[0]]) closeSync(fd);
});

test("stop: while it waits to read, while it is blocked in a write, and after its end", async (t) => {
  const [idle, nowhere] = [native().pipe(), native().pipe()];
  const waiting = native().relay(idle[0], nowhere[1]);
  waiting.stop();
  waiting.stop();
  t.is(await waiting.ended, "ECANCELED");
  waiting.stop();
  for (const fd of [idle[1], nowhere[0]]) closeSync(fd);

  for (const destination of Object.values(pairs)) {
    const [first, last] = [native().socketpair("stream"), destination()];
    const relay = native().relay(first[0], last[1]);
    open(t, first[1]).write(Buffer.alloc(TOO_MUCH));
    for (let before = -1n; before !== relay.moved; await after(50)) before = relay.moved;
    t.true(relay.moved < BigInt(TOO_MUCH));
    relay.stop();
    t.is(await relay.ended, "ECANCELED");
    closeSync(last[0]);
  }
});

test.serial("what is left of a relay that has ended, held for as long as a collector likes, is neither descriptors nor memory", async (t) => {
  const own = (): number => readdirSync("/proc/self/fd").length;
  const [before, rssBefore] = [own(), process.memoryUsage.rss()];
  const held = [];
  for (let turn = 0; turn < 400; turn++) {
    const [source, sink] = native().pipe();
    const [end, destination] = native().pipe();
    const relay = native().relay(source, destination);
    writeSync(sink, "x");
    closeSync(sink);
    t.is(await relay.ended, null);
    closeSync(end);
    held.push(relay);
  }
  t.is(own(), before);
  const grown = process.memoryUsage.rss() - rssBefore;
  t.is(held.length, 400);
  // While it works, each has a buffer of 256 KiB.
  t.true(grown < 400 * 64 * 1024, `${grown} bytes for 400 relays`);
});

test("nobody reads the destination any more: EPIPE, with bytes to write or without", async (t) => {
  for (const destination of Object.values(pairs)) {
    const [first, last] = [native().pipe(), destination()];
    const busy = native().relay(first[0], last[1]);
    closeSync(last[0]);
    t.is(await busy.ended, "EPIPE");
    t.throws(() => writeSync(first[1], "x"), { code: "EPIPE" });
    closeSync(first[1]);
  }
  const [first, last] = [native().pipe(), native().pipe()];
  writeSync(first[1], "x");
  closeSync(last[0]);
  t.is(await native().relay(first[0], last[1]).ended, "EPIPE");
  closeSync(first[1]);
});

test("a destination that others hold, too, is not shut down: it may be the caller's standard output", async (t) => {
  const [ours, theirs] = native().socketpair("stream");
  for (const word of ["one", "two"]) {
    const [source, sink] = native().pipe();
    const relay = native().relay(source, native().dupFd(ours));
    writeSync(sink, word);
    closeSync(sink);
    t.is(await relay.ended, null);
    t.is(read(theirs), word);
  }
  writeSync(ours, "mine");
  t.is(read(theirs), "mine");
  writeSync(theirs, "back");
  t.is(read(ours), "back");
  for (const fd of [ours, theirs]) closeSync(fd);
});

test("a descriptor that is none is refused at once, and the other one stays its owner's", (t) => {
  const [source, sink] = native().pipe();
  for (const call of [() => native().relay(-1, sink), () => native().relay(source, -1), () => native().relay(source, 1 << 20), () => native().bridge(-1)]) {
    t.throws(call, { code: "EBADF", message: /fcntl/ });
  }
  writeSync(sink, "still ours");
  t.is(read(source), "still ours");
  for (const fd of [source, sink]) closeSync(fd);
});

test("bridge: both directions, each with an end of its own", async (t) => {
  const [far, near] = native().socketpair("stream");
  const bridged = open(t, native().bridge(near));
  const peer = open(t, far);
  const [there, back] = [randomBytes(WRITE_ALL), randomBytes(WRITE_ALL)];
  bridged.end(there);
  t.true(there.equals(await readAll(peer))); // its end has come, the other direction is still open
  peer.end(back);
  t.true(back.equals(await readAll(bridged)));
});

test("bridge: an end that vanishes takes the other along", async (t) => {
  const [far, near] = native().socketpair("stream");
  const bridged = native().bridge(near);
  closeSync(far);
  t.is(read(bridged), "");
  closeSync(bridged);
  const [other, close] = native().socketpair("stream");
  closeSync(native().bridge(close));
  t.is(read(other), "");
  closeSync(other);
});

/** Connects, and sends these bytes one write each. */
function dial(path: string, ...parts: (string | Buffer)[]): number {
  const fd = native().connectUnix(path, "stream");
  for (const part of parts) writeSync(fd, Buffer.from(part as string, "latin1"));
  return fd;
}

test("listenStream hands every connection on", async (t) => {
  const path = join(temporaryFolder(t), "stream.sock");
  const arrived = Promise.withResolvers<number>();
  const listener = native().listenStream({ unixPath: path }, arrived.resolve);
  const caller = dial(path, "hello");
  const fd = await arrived.promise;
  t.is(read(fd), "hello");
  for (const one of [fd, caller]) closeSync(one);
  listener.close();
  t.throws(() => native().connectUnix(path, "stream"));
});

test("a listener goes on though nothing holds it and the collector has come by", async (t) => {
  const path = join(temporaryFolder(t), "held.sock");
  let arrived = Promise.withResolvers<number>();
  const listener = new WeakRef(native().listenStream({ unixPath: path }, (fd) => arrived.resolve(fd)));
  t.teardown(() => listener.deref()?.close());
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let turn = 0; turn < 3; turn++) {
    collect();
    await new Promise((done) => setImmediate(done)); // finalizers run here
    arrived = Promise.withResolvers<number>();
    const caller = dial(path, "hello");
    const fd = await arrived.promise;
    t.is(read(fd), "hello");
    for (const one of [fd, caller]) closeSync(one);
  }
});

/** Listens with no descriptor left; half a second after a line on its standard input it tells the processor's share, frees one, and takes the connection. */
const FULL = `
const { native } = await import(process.argv[1]);
const { closeSync, openSync, writeSync } = await import("node:fs");
const arrived = Promise.withResolvers();
native().listenStream({ unixPath: process.argv[2] }, arrived.resolve);
process.stdin.once("data", () => {
  const [start, used] = [process.hrtime.bigint(), process.cpuUsage()];
  setTimeout(async () => {
    const { user, system } = process.cpuUsage(used);
    const share = (1000 * (user + system)) / Number(process.hrtime.bigint() - start);
    for (const fd of held) closeSync(fd);
    await arrived.promise;
    writeSync(1, share.toFixed(2));
    process.exit();
  }, 500);
});
const held = [];
try { for (;;) held.push(openSync("/dev/null")); } catch {}
writeSync(1, "full");`;

test("a listener without descriptors for a connection waits for one, and does not turn in a circle", async (t) => {
  const path = join(temporaryFolder(t), "full.sock");
  const addon = join(repository, "src/native.ts");
  const words = ["--nofile=96", process.execPath, "--disable-warning=ExperimentalWarning", "--input-type=module", "-e", FULL, addon, path];
  const child = spawn("prlimit", words, { stdio: ["pipe", "pipe", "inherit"] });
  t.teardown(() => child.kill("SIGKILL"));
  const told = child.stdout[Symbol.asyncIterator]();
  t.is(String((await told.next()).value), "full");
  const caller = dial(path);
  child.stdin.write("\n");
  t.true(Number((await told.next()).value) < 0.5);
  closeSync(caller);
});

test("listenTagged: the id comes first, in one piece or in many; what follows it is the stream's", async (t) => {
  const path = join(temporaryFolder(t), "tagged.sock");
  const found = new Map<bigint, number>();
  let wake = (): void => {};
  const listener = native().listenTagged({ unixPath: path }, (fd, id) => {
    found.set(id, fd);
    wake();
  });
  t.teardown(() => listener.close());
  const silent = dial(path);
  const short = dial(path, "\0\0\0");
  closeSync(short);
  const callers = [
    dial(path, "\0\0\0\0\0\0\0\x07after"),
    dial(path, ...Array.from(Buffer.from("fedcba9876543210", "hex"), (byte) => Buffer.from([byte])), "x"),
    dial(path, "\0\0\0\0\0\0\x01\0"),
  ];
  while (found.size < 3) await new Promise<void>((done) => (wake = done));
  t.deepEqual(
    [...found.keys()].sort((one, other) => (one < other ? -1 : 1)),
    [7n, 256n, 0xfedcba9876543210n],
  );
  t.is(read(found.get(7n) ?? -1), "after");
  t.is(read(found.get(0xfedcba9876543210n) ?? -1), "x");
  for (const fd of [...found.values(), ...callers, silent]) closeSync(fd);
});

test("receiveFds: its file goes with it", (t) => {
  const path = join(temporaryFolder(t), "fds.sock");
  const receiver = native().receiveFds(path, () => {});
  t.true(existsSync(path));
  receiver.close();
  receiver.close();
  t.false(existsSync(path));
});

test("a relay that has ended does not keep the process alive", async (t) => {
  const script = `const { native } = await import(${JSON.stringify(join(repository, "src/native.ts"))});
const [source, sink] = native().pipe();
globalThis.relay = native().relay(source, native().pipe()[1]);
native().closeFd(sink);
await relay.ended;`;
  const { code } = await runProgram("timeout", ["3", process.execPath, "--input-type=module", "-e", script]);
  t.is(code, 0);
});

test("errors carry their errno name and call", (t) => {
  t.throws(() => native().closeFd(-1), { code: "EBADF", message: /close/ });
  t.like(
    t.throws(() => native().dupFd(-1)),
    { code: "EBADF", syscall: "fcntl" },
  );
  t.throws(() => native().connectUnix("/no/such/x.sock", "stream"), { code: "ENOENT" });
});
