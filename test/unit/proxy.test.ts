/** native/proxy, as the command line starts it: what it may still do, what it forwards, how it ends. The sandbox process's part is played here. */
import { readFileSync, readlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { errorChain } from "../../src/base/errors.ts";
import { type ProxyProcess, startProxy } from "../../src/lifecycle/proxy.ts";
import { native, type PacketSocket } from "../../src/native.ts";
import { failure, repository, runProgram, temporaryFolder } from "./helpers.ts";

const program = join(repository, "dist/lib/tskata-proxy");
const KILL = 9;
const STOP = 19;

interface Running {
  readonly proxy: ProxyProcess;
  readonly socket: PacketSocket;
  /** The next message. */
  next(): Promise<Buffer>;
}

async function start(t: ExecutionContext, network?: string): Promise<Running> {
  const proxy = await startProxy(program, [], undefined, network);
  await proxy.ready;
  const queue: Buffer[] = [];
  let wake = (): void => {};
  const socket = native().packetSocket(proxy.socket, (message) => {
    if (message !== null) queue.push(message);
    wake();
  });
  t.teardown(() => {
    socket.close();
    proxy.kill();
  });
  const next = async (): Promise<Buffer> => {
    while (queue.length === 0) await new Promise<void>((done) => (wake = done));
    return queue.shift() ?? Buffer.alloc(0);
  };
  const hello = await next();
  t.deepEqual([hello[0], hello.readUInt32LE(1)], [0x50, proxy.ref.pid]);
  return { proxy, socket, next };
}

function exitMessage(waitStatus: number): Buffer {
  const message = Buffer.from("X\0\0\0\0");
  message.writeInt32LE(waitStatus, 1);
  return message;
}

test("it has no capability, can gain none, and has its list of system calls before it says who it is", async (t) => {
  const { proxy } = await start(t);
  const status = readFileSync(`/proc/${proxy.ref.pid}/status`, "utf8");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) t.regex(status, new RegExp(`^${set}:\\t0{16}$`, "m"));
  t.regex(status, /^NoNewPrivs:\t1$/m);
  t.regex(status, /^Seccomp:\t2$/m);
});

test("its network namespace is a new one, one that is named, or its caller's; one that is not there is told", async (t) => {
  const of = (pid: number | "self"): string => readlinkSync(`/proc/${pid}/ns/net`);
  const { proxy } = await start(t, "new");
  t.not(of(proxy.ref.pid), of("self"));
  t.is(of((await start(t, `/proc/${proxy.ref.pid}/ns/net`)).proxy.ref.pid), of(proxy.ref.pid));
  t.is(of((await start(t)).proxy.ref.pid), of("self"));
  const bad = await startProxy(program, [], undefined, "/no/such");
  await t.throwsAsync(bad.ready, failure("unavailable", 'enter the network namespace "/no/such": No such file or directory'));
  bad.closeSocket();
});

test("every signal that can be caught is forwarded; a stop and its end are survived", async (t) => {
  const { proxy, next } = await start(t);
  const { pid } = proxy.ref;
  for (let number = 1; number <= 64; number++) {
    // SIGCHLD is its own; 32 and 33 are the C library's, and no one's to send.
    if ([KILL, STOP, 17, 32, 33].includes(number)) continue;
    process.kill(pid, number);
    t.deepEqual([...(await next())], [0x53, number]);
  }
  process.kill(pid, "SIGSTOP");
  process.kill(pid, "SIGCONT");
  t.deepEqual([...(await next())], [0x53, 18]);
  process.kill(pid, "SIGUSR1");
  t.deepEqual([...(await next())], [0x53, 10]);
});

test("it ends as the guest's process did, by code or signal, and by SIGKILL when the pod has died", async (t) => {
  for (const code of [0, 7, 255]) {
    const { proxy, socket } = await start(t);
    socket.send(exitMessage(code << 8));
    t.deepEqual(await proxy.ended, { code, signal: undefined });
  }
  for (const [number, signal] of [
    [1, "SIGHUP"],
    [6, "SIGABRT"],
    [KILL, "SIGKILL"],
    [11, "SIGSEGV"],
    [15, "SIGTERM"],
    [31, "SIGSYS"],
  ] as const) {
    const { proxy, socket } = await start(t);
    socket.send(exitMessage(number));
    t.deepEqual(await proxy.ended, { code: 128 + number, signal });
  }
  const { proxy, socket } = await start(t);
  socket.close();
  t.is((await proxy.ended).signal, "SIGKILL");
});

test("one that can't be started says why", async (t) => {
  const error = await t.throwsAsync(startProxy("/no/such/proxy", [], undefined), failure("unavailable", "start /no/such/proxy"));
  t.regex(errorChain(error), /: spawn \/no\/such\/proxy ENOENT$/);
});

test("it is in each of its cgroups when that has been waited for; who waits is told that it could not join", async (t) => {
  const folders = [temporaryFolder(t), temporaryFolder(t)];
  const proxy = await startProxy(program, folders, undefined);
  await proxy.ready;
  for (const folder of folders) t.is(readFileSync(join(folder, "cgroup.procs"), "utf8"), String(proxy.ref.pid));
  proxy.closeSocket();
  const lost = await startProxy(program, ["/no/such"], undefined);
  await after(50); // nobody has asked yet
  await t.throwsAsync(lost.ready, failure("unavailable", `move process ${lost.ref.pid} to the cgroup /no/such`));
  lost.closeSocket();
  t.is((await lost.ended).signal, "SIGKILL");
});

test("one that has ended before it could join its cgroups is no failure", async (t) => {
  const slow = temporaryFolder(t);
  const fifo = join(slow, "cgroup.procs");
  await runProgram("mkfifo", [fifo]); // holds its writer up until there is a reader
  const proxy = await startProxy(program, [slow, "/no/such"], undefined);
  proxy.closeSocket();
  await proxy.ended;
  t.is(await readFile(fifo, "utf8"), String(proxy.ref.pid));
  await t.notThrowsAsync(proxy.ready);
});
