/** The sandbox's end of the control API: ttrpc over a unix socket that root alone may open. */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { errorChain, TskataError } from "../base/errors.ts";
import type { ControlService } from "../protocols/generated/control.ts";
import type { Method } from "../protocols/wire.ts";
import { encodeFrame, type Frame, FrameReader, REQUEST, RESPONSE, Request, Response, statusOf } from "./ttrpc.ts";

/** One async function a method. `signal` aborts when the caller has gone. */
export type ControlHandlers = {
  readonly [Key in keyof typeof ControlService]: (typeof ControlService)[Key] extends Method<infer Req, infer Res>
    ? (request: Req, signal: AbortSignal) => Promise<Partial<Res>>
    : never;
};

type AnyMethod = Method<object, object>;
type AnyHandler = (request: object, signal: AbortSignal) => Promise<object>;

export class ControlServer {
  readonly #server: Server;
  readonly #path: string;
  readonly #handlers = new Map<string, { method: AnyMethod; handler: AnyHandler }>();
  readonly #explain: (error: unknown) => Promise<unknown>;

  private constructor(path: string, service: typeof ControlService, handlers: ControlHandlers, explain: (error: unknown) => Promise<unknown>) {
    this.#path = path;
    this.#explain = explain;
    for (const key of Object.keys(service) as (keyof typeof ControlService)[]) {
      const method = service[key] as unknown as AnyMethod;
      this.#handlers.set(`${method.service}/${method.name}`, { method, handler: handlers[key] as unknown as AnyHandler });
    }
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** `explain` is given each error, and returns the one that the caller is told. */
  static async listen(
    path: string,
    service: typeof ControlService,
    handlers: ControlHandlers,
    explain: (error: unknown) => Promise<unknown> = async (error) => error,
  ): Promise<ControlServer> {
    const server = new ControlServer(path, service, handlers, explain);
    rmSync(path, { force: true });
    await new Promise<void>((done, fail) => {
      server.#server.once("error", fail);
      server.#server.listen(path, done);
    });
    chmodSync(path, 0o600);
    return server;
  }

  #serve(socket: Socket): void {
    const reader = new FrameReader();
    const gone = new AbortController();
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => gone.abort());
    socket.on("data", (bytes: Buffer) => {
      try {
        for (const frame of reader.push(bytes)) if (frame.type === REQUEST) void this.#answer(socket, frame, gone.signal);
      } catch {
        socket.destroy(); // not ttrpc
      }
    });
  }

  async #answer(socket: Socket, frame: Frame, signal: AbortSignal): Promise<void> {
    const data = await this.#call(frame.data, signal);
    if (!socket.destroyed) socket.write(responseFrame(frame.stream, data));
  }

  async #call(data: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    try {
      const request = Request.decode(data);
      const found = this.#handlers.get(`${request.service}/${request.method}`);
      if (found === undefined) throw new TskataError("unsupported", `no method ${request.service}/${request.method}`);
      const response = await found.handler(found.method.request.decode(request.payload), signal);
      return Response.encode({ payload: found.method.response.encode(response) });
    } catch (thrown) {
      const error = await this.#explain(thrown);
      const code = error instanceof TskataError ? error.code : "internal";
      return Response.encode({ status: statusOf(code, errorChain(error)) });
    }
  }

  close(): void {
    this.#server.close();
    rmSync(this.#path, { force: true });
  }
}

/** An answer that is too large becomes an error that says so. */
function responseFrame(stream: number, data: Uint8Array): Buffer {
  try {
    return encodeFrame({ stream, type: RESPONSE, data });
  } catch (error) {
    const status = statusOf(error instanceof TskataError ? error.code : "internal", errorChain(error));
    return encodeFrame({ stream, type: RESPONSE, data: Response.encode({ status }) });
  }
}
