/** src/control/client.ts and server.ts, talking over a unix socket: answers, errors, broken peers, callers that leave. */
import { once } from "node:events";
import { statSync } from "node:fs";
import { createServer, connect as netConnect, type Socket } from "node:net";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { TskataError } from "../../src/base/errors.ts";
import { ControlClient } from "../../src/control/client.ts";
import { type ControlHandlers, ControlServer } from "../../src/control/server.ts";
import { encodeFrame, FrameReader, REQUEST, RESPONSE, Request, Response } from "../../src/control/ttrpc.ts";
import { ControlService } from "../../src/protocols/generated/control.ts";
import { failure, temporaryFolder } from "./helpers.ts";

const LARGE = 3 * 1024 * 1024;

/** A server whose other methods all fail. */
async function serve(t: ExecutionContext, handlers: Partial<ControlHandlers>): Promise<string> {
  const path = join(temporaryFolder(t), "control.sock");
  const refuse = async (): Promise<never> => {
    throw new TskataError("unsupported", "not in this test");
  };
  const all = Object.fromEntries(Object.keys(ControlService).map((key) => [key, refuse]));
  const server = await ControlServer.listen(path, ControlService, { ...all, ...handlers } as unknown as ControlHandlers);
  t.teardown(() => server.close());
  return path;
}

function connect(t: ExecutionContext, path: string): ControlClient {
  const client = ControlClient.connect(path);
  t.teardown(() => client[Symbol.dispose]());
  return client;
}

/** A peer that answers each connection with whatever the test likes. */
async function rawServer(t: ExecutionContext, onSocket: (socket: Socket) => void): Promise<string> {
  const path = join(temporaryFolder(t), "raw.sock");
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    onSocket(socket);
  }).listen(path);
  await once(server, "listening");
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

async function rawClient(t: ExecutionContext, path: string): Promise<Socket> {
  const socket = netConnect(path).on("error", () => {});
  t.teardown(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

test("only the owner may open the socket; a stale one in its place is replaced", async (t) => {
  const path = await serve(t, {});
  t.is(statSync(path).mode & 0o777, 0o600);
  const again = await ControlServer.listen(path, ControlService, {} as unknown as ControlHandlers);
  again.close();
  t.throws(() => ControlClient.connect(path), failure("unavailable", /does not answer/));
});

test("a call's request reaches the method of its name and the answer comes back", async (t) => {
  const path = await serve(t, {
    stats: async ({ containerId }) => ({ json: Buffer.from(`stats of ${containerId}`) }),
    kill: async (request) => {
      t.deepEqual({ ...request }, { ...request, containerId: "box", signal: 9, all: true });
      return {};
    },
  });
  const client = connect(t, path);
  t.is(Buffer.from((await client.call(ControlService.stats, { containerId: "ü" })).json).toString(), "stats of ü");
  t.deepEqual(await client.call(ControlService.kill, { containerId: "box", signal: 9, all: true }), {});
});

test("answers find their callers in whatever order they come", async (t) => {
  const waiting = new Map<string, () => void>();
  const path = await serve(t, {
    stats: async ({ containerId }) => {
      await new Promise<void>((go) => waiting.set(containerId, go));
      return { json: Buffer.from(containerId) };
    },
    info: async () => {
      for (const id of ["c", "a", "b"]) waiting.get(id)?.();
      return { json: Buffer.from("{}") };
    },
  });
  const client = connect(t, path);
  const calls = ["a", "b", "c"].map(async (containerId) => Buffer.from((await client.call(ControlService.stats, { containerId })).json).toString());
  await client.call(ControlService.info, {});
  t.deepEqual(await Promise.all(calls), ["a", "b", "c"]);
});

test("large requests and answers pass whole", async (t) => {
  const path = await serve(t, { create: async ({ spec }) => ({ guestPid: spec.length }), stats: async () => ({ json: Buffer.alloc(LARGE, "x") }) });
  const client = connect(t, path);
  t.is((await client.call(ControlService.create, { spec: Buffer.alloc(LARGE) })).guestPid, LARGE);
  t.true(Buffer.alloc(LARGE, "x").equals((await client.call(ControlService.stats, {})).json));
});

test("errors keep their code, and the messages of their causes", async (t) => {
  const path = await serve(t, {
    start: async () => {
      throw new TskataError("wrong-state", "cannot start", { cause: new Error("it runs") });
    },
    pause: async () => {
      throw new RangeError("odd");
    },
    resume: async () => {
      throw "a word";
    },
  });
  const client = connect(t, path);
  await t.throwsAsync(client.call(ControlService.start, {}), failure("wrong-state", "cannot start: it runs"));
  await t.throwsAsync(client.call(ControlService.pause, {}), failure("internal", "odd"));
  await t.throwsAsync(client.call(ControlService.resume, {}), failure("internal", "a word"));
  await t.throwsAsync(client.call(ControlService.info, {}), failure("unsupported", "not in this test"));
  const unknown = { ...ControlService.info, name: "NoSuch" };
  await t.throwsAsync(client.call(unknown, {}), failure("unsupported", "no method tskata.control.v1.Control/NoSuch"));
});

test("what is too large for a frame is an error of that call alone", async (t) => {
  const path = await serve(t, { stats: async () => ({ json: Buffer.alloc(2 * LARGE) }), info: async () => ({ json: Buffer.from("{}") }) });
  const client = connect(t, path);
  await t.throwsAsync(client.call(ControlService.create, { spec: Buffer.alloc(2 * LARGE) }), failure("limit", /is larger than 4194304$/));
  await t.throwsAsync(client.call(ControlService.stats, {}), failure("limit", /is larger than 4194304$/));
  t.is((await client.call(ControlService.info, {})).json.length, 2);
});

test("the server's view of a caller that leaves: its signal aborts, others go on", async (t) => {
  const entered = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  const path = await serve(t, {
    events: async (_, signal) => {
      signal.addEventListener("abort", () => aborted.resolve());
      entered.resolve();
      await aborted.promise;
      return { events: [] };
    },
    info: async (_, signal) => ({ json: Buffer.from(String(signal.aborted)) }),
  });
  const [leaving, staying] = [connect(t, path), connect(t, path)];
  const call = leaving.call(ControlService.events, {});
  await entered.promise;
  leaving[Symbol.dispose]();
  await t.throwsAsync(call, failure("unavailable", "the sandbox process has closed the connection"));
  await aborted.promise;
  t.is(Buffer.from((await staying.call(ControlService.info, {})).json).toString(), "false");
  await t.throwsAsync(leaving.call(ControlService.info, {}), failure("unavailable", /closed the connection/));
});

test("a server that says nothing is given up; its late answer disturbs nobody", async (t) => {
  let answer = (): void => {};
  const path = await serve(t, {
    stats: async () => {
      await new Promise<void>((go) => (answer = go));
      return { json: Buffer.from("late") };
    },
    info: async () => ({ json: Buffer.from("{}") }),
  });
  const client = connect(t, path);
  await t.throwsAsync(client.call(ControlService.stats, {}, 60), failure("timeout", "the sandbox process did not answer Stats in 0.06 s"));
  answer();
  t.is((await client.call(ControlService.info, {}, 5000)).json.length, 2);
});

test("a server that ends, or speaks something else, fails every call", async (t) => {
  const ends = await rawServer(t, (socket) => socket.once("data", () => socket.destroy()));
  const client = connect(t, ends);
  const calls = [client.call(ControlService.info, {}), client.call(ControlService.stats, {})];
  for (const call of calls) await t.throwsAsync(call, failure("unavailable", "the sandbox process has closed the connection"));

  const noise = await rawServer(t, (socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await t.throwsAsync(connect(t, noise).call(ControlService.info, {}), failure("internal", "read the sandbox process's answer"));

  const broken = await rawServer(t, (socket) =>
    socket.once("data", () => socket.write(encodeFrame({ stream: 1, type: RESPONSE, data: Buffer.from([10, 99]) }))),
  );
  await t.throwsAsync(connect(t, broken).call(ControlService.info, {}), failure("internal", "read the sandbox process's answer"));
});

test("answers to nobody, and frames of other types, are passed over", async (t) => {
  const path = await rawServer(t, (socket) => {
    const reader = new FrameReader();
    socket.on("data", (bytes: Buffer) => {
      for (const { stream } of reader.push(bytes)) {
        const data = Response.encode({ payload: Buffer.from("0a027b7d", "hex") });
        const frames = [encodeFrame({ stream: stream + 100, type: RESPONSE, data }), encodeFrame({ stream, type: 3, data: Buffer.from("x") })];
        for (const part of Buffer.concat([...frames, encodeFrame({ stream, type: RESPONSE, data })])) socket.write(Buffer.from([part]));
      }
    });
  });
  t.is(Buffer.from((await connect(t, path).call(ControlService.info, {})).json).toString(), "{}");
});

test("a caller that speaks no ttrpc is disconnected, the server lives on", async (t) => {
  const path = await serve(t, { info: async () => ({ json: Buffer.from("{}") }) });
  const noise = await rawClient(t, path);
  noise.resume().write(Buffer.alloc(64, 0xff));
  await once(noise, "close");

  // A whole frame with no message in it is an error of that call.
  const odd = await rawClient(t, path);
  odd.write(encodeFrame({ stream: 5, type: REQUEST, data: Buffer.from([10, 99]) }));
  const [bytes] = (await once(odd, "data")) as [Buffer];
  const [frame] = new FrameReader().push(bytes);
  t.is(frame?.stream, 5);
  t.is(Response.decode(frame?.data ?? new Uint8Array()).status?.code, 13);

  // Nor does a payload that is not the method's.
  odd.write(
    encodeFrame({ stream: 7, type: REQUEST, data: Request.encode({ service: "tskata.control.v1.Control", method: "Stats", payload: Buffer.from([10, 9]) }) }),
  );
  const [second] = (await once(odd, "data")) as [Buffer];
  t.is(Response.decode(new FrameReader().push(second)[0]?.data ?? new Uint8Array()).status?.code, 13);
  t.is((await connect(t, path).call(ControlService.info, {})).json.length, 2);
});

test("a path longer than a socket address can be reached", async (t) => {
  const path = await rawServer(t, (socket) => socket.destroy());
  const detour = path.replace("/raw.sock", `${"/.".repeat(80)}/raw.sock`);
  t.true(detour.length > 108);
  await t.throwsAsync(connect(t, detour).call(ControlService.info, {}), failure("unavailable", /closed the connection/));
});
