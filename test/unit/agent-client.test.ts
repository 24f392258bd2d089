/** src/agent-client: a guest that answers with anything but what was asked gets an error of ours, in bounded memory, and never a crash. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Stream } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { AgentClient } from "../../src/agent-client/agent-client.ts";
import { TskataError } from "../../src/base/errors.ts";
import { ERROR_TRAILER } from "../../src/protocols/agent-service.ts";
import { CheckResponse, ErrorDetail, Event, SandboxService } from "../../src/protocols/generated/agent.ts";

const CALL_MS = 2000;
const HEADERS = { ":status": 200, "content-type": "application/grpc" };

/** A client of a guest whose port is `server`. */
async function clientOf(t: ExecutionContext, server: Server | Http2Server): Promise<AgentClient> {
  const folder = mkdtempSync(join(tmpdir(), "tskata-agent-"));
  const path = join(folder, "vsock");
  server.listen(path);
  await once(server, "listening");
  const client = new AgentClient(path);
  t.teardown(() => {
    client.close();
    server.close();
    rmSync(folder, { recursive: true });
  });
  return client;
}

function grpcServer(answer: (stream: ServerHttp2Stream) => void): Http2Server {
  const server = createHttp2Server();
  server.on("stream", (stream) => {
    stream.on("error", () => {}); // the client resets what it has enough of
    answer(stream);
  });
  server.on("session", (session) => session.on("error", () => {}));
  return server;
}

/** gRPC over HTTP2, PROTOCOL-HTTP2.md: a flag byte, the length, the message. */
function framed(message: Uint8Array, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

function respond(stream: ServerHttp2Stream, body: Uint8Array, trailers: Record<string, string | Buffer> = { "grpc-status": "0" }): void {
  stream.respond(HEADERS, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers as Record<string, string>));
  stream.end(body);
}

async function failureOf(t: ExecutionContext, client: AgentClient): Promise<TskataError> {
  const error = await t.throwsAsync(client.call(SandboxService.check, {}, CALL_MS), { instanceOf: TskataError });
  if (error === undefined) throw new Error("the call did not fail");
  return error;
}

test("what an honest agent answers arrives", async (t) => {
  const client = await clientOf(
    t,
    grpcServer((stream) => respond(stream, framed(CheckResponse.encode({ version: "1", kernel: "6" })))),
  );
  t.is((await client.call(SandboxService.check, {}, CALL_MS)).kernel, "6");
});

const sockets: Readonly<Record<string, (socket: Socket) => void>> = {
  "bytes that are no HTTP/2": (socket) => void socket.write(randomBytes(100_000)),
  "an end at once": (socket) => void socket.end(),
  "HTTP/1": (socket) => void socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
  // RFC 9113 §4.1: a frame of 16 MiB - 1 where 16 KiB are allowed.
  "a frame larger than was agreed on": (socket) =>
    void socket.write(Buffer.concat([Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), randomBytes(1 << 20)])),
  // RFC 9113 §6.5: empty settings without end, each of which wants an answer.
  "a flood of settings": (socket) => {
    const flood = Buffer.concat(Array.from({ length: 10_000 }, () => Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])));
    const more = (): void => {
      while (!socket.destroyed && socket.write(flood));
    };
    socket.on("drain", more);
    more();
  },
};

for (const [name, behave] of Object.entries(sockets)) {
  test(`instead of an answer: ${name}`, async (t) => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.resume();
      behave(socket);
    });
    t.is((await failureOf(t, await clientOf(t, server))).code, "unavailable");
  });
}

const answers: Readonly<Record<string, (stream: ServerHttp2Stream) => void>> = {
  "a message that is no protobuf": (stream) => respond(stream, framed(Buffer.alloc(64, 0xff))),
  "half a message": (stream) => respond(stream, framed(Buffer.alloc(10), 1000)),
  "a message said to be larger than any may be": (stream) => respond(stream, framed(Buffer.alloc(10), 0xffff_ffff)),
  "two messages for one call": (stream) => respond(stream, Buffer.concat([framed(Buffer.alloc(0)), framed(Buffer.alloc(0))])),
  "no message at all": (stream) => respond(stream, Buffer.alloc(0)),
  "another content type and status": (stream) => {
    stream.respond({ ":status": 500, "content-type": "text/html" });
    stream.end("<html>");
  },
  "a status that is no number": (stream) => respond(stream, Buffer.alloc(0), { "grpc-status": "none" }),
  "details that are none": (stream) => respond(stream, Buffer.alloc(0), { "grpc-status": "13", [ERROR_TRAILER]: randomBytes(200).toString("base64") }),
  "a reset": (stream) => stream.close(2),
};

for (const [name, behave] of Object.entries(answers)) {
  test(`as an answer: ${name}`, async (t) => {
    // grpc-js takes a second message for no answer at all.
    const code = name === "two messages for one call" ? "timeout" : "unavailable";
    t.is((await failureOf(t, await clientOf(t, grpcServer(behave)))).code, code);
  });
}

test("a message without end is not kept", async (t) => {
  let sent = 0;
  const client = await clientOf(
    t,
    grpcServer((stream) => {
      stream.respond(HEADERS);
      const piece = framed(Buffer.alloc(1 << 20), 0x7fff_ffff);
      const more = (): void => {
        while (!stream.destroyed && sent < 2 ** 30) {
          sent += piece.length;
          if (!stream.write(piece)) return;
        }
      };
      stream.on("drain", more);
      more();
    }),
  );
  t.is((await failureOf(t, client)).code, "unavailable");
  t.true(sent < 64 * 2 ** 20, `${sent} bytes were taken`);
});

test("an agent that never answers: the time limit", async (t) => {
  const client = await clientOf(
    t,
    grpcServer(() => {}),
  );
  const error = await t.throwsAsync(client.call(SandboxService.check, {}, 300), { instanceOf: TskataError });
  t.is(error?.code, "timeout");
  t.is(error?.message, "the agent in the guest did not answer Check in 0.3 s");
});

const DAY_MS = 86_400_000;
const jumps: Readonly<Record<string, (reads: number) => number>> = {
  "a day forward": () => DAY_MS,
  "a day back": () => -DAY_MS,
  // Between any two times that somebody asks for.
  "a day to and fro": (reads) => (reads % 2) * DAY_MS,
};

/** From now on the wall clock is set to another time, until the test has ended. */
function setClock(t: ExecutionContext, ahead: (reads: number) => number): void {
  const now = Date.now;
  let reads = 0;
  Date.now = () => now() + ahead(reads++);
  t.teardown(() => {
    Date.now = now;
  });
}

// Serial: the clock is everybody's.
for (const [name, ahead] of Object.entries(jumps)) {
  test.serial(`the wall clock jumps ${name} while the agent works: it is waited for, and no deadline is the agent's to keep`, async (t) => {
    const deadlines: unknown[] = [];
    const server = grpcServer((stream) => setTimeout(() => respond(stream, framed(CheckResponse.encode({ version: "1", kernel: "6" }))), 200));
    server.on("stream", (_stream, headers) => deadlines.push(headers["grpc-timeout"]));
    const client = await clientOf(t, server);
    const asked = client.call(SandboxService.check, {}, CALL_MS);
    setClock(t, ahead);
    t.is((await asked).kernel, "6");
    t.is((await client.call(SandboxService.check, {}, CALL_MS)).kernel, "6");
    t.deepEqual(deadlines, [undefined, undefined]);
  });

  test.serial(`the wall clock jumps ${name} while the agent does not answer: it is waited for no longer, and hears of it`, async (t) => {
    t.timeout(30_000);
    const given: Promise<unknown>[] = [];
    const server = grpcServer((stream) => given.push(once(stream, "close")));
    const client = await clientOf(t, server);
    const asked = [client.call(SandboxService.check, {}, 300)];
    setClock(t, ahead);
    asked.push(client.call(SandboxService.check, {}, 300));
    const ends = await Promise.allSettled(asked);
    const message = "the agent in the guest did not answer Check in 0.3 s";
    t.deepEqual(
      ends.map((end) => (end.status === "rejected" && end.reason instanceof TskataError ? [end.reason.code, end.reason.message] : end)),
      [
        ["timeout", message],
        ["timeout", message],
      ],
    );
    t.is((await Promise.all(given)).length, 2);
  });
}

test("an error's text ends on a terminal: no control characters, not without end, no code of the guest's own", async (t) => {
  const detail = ErrorDetail.encode({ code: "root-shell", message: `\u001b[2J${"x".repeat(5000)}`, step: "", errno: "" });
  const client = await clientOf(
    t,
    grpcServer((stream) => respond(stream, Buffer.alloc(0), { "grpc-status": "2", [ERROR_TRAILER]: Buffer.from(detail).toString("base64") })),
  );
  const { code, message } = await failureOf(t, client);
  t.is(code, "internal");
  t.is(message, `?[2J${"x".repeat(4092)}`);
});

test("events: those before a broken one are heard, then the end", async (t) => {
  const one = framed(Event.encode({ oom: { containerId: "c", kills: 1n } }));
  const client = await clientOf(
    t,
    grpcServer((stream) => respond(stream, Buffer.concat([one, one, framed(Buffer.alloc(8, 0xff)), one]))),
  );
  const heard: string[] = [];
  await new Promise<void>((done) => client.events((event) => heard.push(event.oom?.containerId ?? ""), done));
  t.deepEqual(heard, ["c", "c"]);
});
