/** src/control/handoff.ts and src/sandbox/handoffs.ts: descriptors that go from one to the other under a token. */
import { closeSync, existsSync, fstatSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { handOver } from "../../src/control/handoff.ts";
import { native } from "../../src/native.ts";
import { closeAll, type Descriptors, Handoffs } from "../../src/sandbox/handoffs.ts";
import { failure, temporaryFolder } from "./helpers.ts";

function receiver(t: ExecutionContext): { path: string; handoffs: Handoffs } {
  const path = join(temporaryFolder(t), "handoff.sock");
  const handoffs = new Handoffs(path);
  t.teardown(() => handoffs.close());
  return { path, handoffs };
}

function closeTaken({ stdin, stdout, stderr, proxy }: Descriptors): void {
  closeAll([stdin, stdout, stderr, proxy]);
}

/** A pipe that the test closes. */
function pipe(t: ExecutionContext): [read: number, write: number] {
  const [read, write] = native().pipe();
  t.teardown(() => closeAll([read, write]));
  return [read, write];
}

function read(fd: number): string {
  const buffer = Buffer.alloc(100);
  return buffer.toString("latin1", 0, readSync(fd, buffer));
}

function sameFile(one: number | undefined, other: number): boolean {
  if (one === undefined) return false;
  const [first, second] = [fstatSync(one), fstatSync(other)];
  return first.dev === second.dev && first.ino === second.ino && first.rdev === second.rdev;
}

test("each descriptor arrives under its name, as another descriptor of the same file", async (t) => {
  const { path, handoffs } = receiver(t);
  const [input, output, errors, proxy] = [pipe(t), pipe(t), pipe(t), pipe(t)];
  const handoff = handOver(path, { stdin: input[0], stdout: output[1], stderr: errors[1], proxy: proxy[0] });
  t.regex(handoff.token, /^[0-9a-f]{32}$/);
  const taken = await handoffs.take(handoff);
  t.true(sameFile(taken.stdin, input[0]) && sameFile(taken.stdout, output[1]) && sameFile(taken.stderr, errors[1]) && sameFile(taken.proxy, proxy[0]));
  t.not(taken.stdout, output[1]);
  writeSync(taken.stdout ?? -1, "through");
  t.is(read(output[0]), "through");
  closeTaken(taken);
});

test("what is not handed over is undefined, the rest keeps its place", async (t) => {
  const { path, handoffs } = receiver(t);
  const [output, proxy] = [pipe(t), pipe(t)];
  const cases = [{ stdout: output[1], proxy: proxy[0] }, { stderr: output[1], proxy: proxy[0] }, { proxy: proxy[0] }];
  for (const fds of cases) {
    const taken = await handoffs.take(handOver(path, fds));
    t.deepEqual(
      Object.entries(taken).flatMap(([name, fd]) => (fd === undefined ? [] : [name])),
      Object.keys(fds),
    );
    t.true(sameFile(taken.proxy, proxy[0]));
    closeTaken(taken);
  }
  t.deepEqual(await handoffs.take(undefined), { stdin: undefined, stdout: undefined, stderr: undefined, proxy: undefined });
});

test("the caller's descriptors stay open; the file ends when all copies are closed", async (t) => {
  const { path, handoffs } = receiver(t);
  const [source, sink] = native().pipe();
  const taken = await handoffs.take(handOver(path, { stdout: sink, proxy: source }));
  writeSync(sink, "mine");
  writeSync(taken.stdout ?? -1, " theirs");
  t.is(read(source), "mine theirs");
  closeSync(sink);
  closeTaken(taken);
  t.is(read(source), "");
  closeSync(source);
});

test("several hand-offs may wait, and be asked for in any order or before they arrive", async (t) => {
  const { path, handoffs } = receiver(t);
  const pipes = [pipe(t), pipe(t), pipe(t)];
  const sent = pipes.map(([proxy]) => handOver(path, { proxy }));
  for (const index of [2, 0, 1]) {
    const taken = await handoffs.take(sent[index]);
    t.true(sameFile(taken.proxy, pipes[index]?.[0] ?? -1));
    closeTaken(taken);
  }
  const token = "later";
  const waiting = handoffs.take({ token, stdin: false, stdout: false, stderr: false, proxy: true });
  const [proxy] = pipe(t);
  const socket = native().connectUnix(path, "seqpacket");
  native().sendFds(socket, Buffer.from(token), [proxy]);
  native().closeFd(socket);
  const taken = await waiting;
  t.true(sameFile(taken.proxy, proxy));
  closeTaken(taken);
});

test("a count that is not the announced one is refused, and the descriptors are closed", async (t) => {
  const { path, handoffs } = receiver(t);
  const [source, sink] = native().pipe();
  const handoff = handOver(path, { stdout: sink, proxy: sink });
  closeSync(sink);
  await t.throwsAsync(handoffs.take({ ...handoff, stdin: true }), failure("invalid", "2 descriptors were handed over where 3 were announced"));
  t.is(read(source), "");
  closeSync(source);
});

test("a token used twice keeps its first descriptors", async (t) => {
  const { path, handoffs } = receiver(t);
  const [first, second] = [pipe(t), native().pipe()];
  const socket = native().connectUnix(path, "seqpacket");
  for (const fd of [first[0], second[1]]) native().sendFds(socket, Buffer.from("token"), [fd]);
  native().sendFds(socket, Buffer.from("last"), [first[1]]);
  native().closeFd(socket);
  closeSync(second[1]);
  const only = { stdin: false, stdout: false, stderr: false, proxy: true };
  closeTaken(await handoffs.take({ token: "last", ...only })); // the others have arrived by then
  t.is(read(second[0]), "");
  const taken = await handoffs.take({ token: "token", ...only });
  t.true(sameFile(taken.proxy, first[0]));
  closeTaken(taken);
  closeSync(second[0]);
});

test("at its end, the socket's file and what nobody asked for are gone", async (t) => {
  const path = join(temporaryFolder(t), "handoff.sock");
  const handoffs = new Handoffs(path);
  const [source, sink] = native().pipe();
  const [proxy] = pipe(t);
  handOver(path, { proxy: sink });
  closeTaken(await handoffs.take(handOver(path, { proxy }))); // the earlier one has arrived by then
  closeSync(sink);
  handoffs.close();
  t.is(read(source), "");
  closeSync(source);
  t.false(existsSync(path));
  t.throws(() => handOver(path, { proxy }), { code: "ENOENT" });
});

test("no descriptor, no hand-off", (t) => {
  const { path } = receiver(t);
  t.throws(() => handOver(path, { proxy: -1 }), { code: "EBADF" });
  t.throws(() => handOver("/no/such/handoff.sock", { proxy: 0 }), { code: "ENOENT" });
});

test("descriptors whose request never comes are closed after a while, and there are not more than so many", async (t) => {
  const path = join(temporaryFolder(t), "handoff.sock");
  const handoffs = new Handoffs(path, { count: 2, keepMs: 50, waitMs: 10 });
  t.teardown(() => handoffs.close());
  const pipes = [native().pipe(), native().pipe(), native().pipe()] as const;
  const sent = pipes.map(([, sink]) => handOver(path, { proxy: sink }));
  for (const [, sink] of pipes) closeSync(sink);
  await after(500);
  for (const [source] of pipes) t.is(read(source), ""); // would wait for ever while anyone holds the other end
  await t.throwsAsync(handoffs.take(sent[0]), failure("invalid", /^the descriptors of the request did not arrive: /));
  for (const [source] of pipes) closeSync(source);
});
