/** A connection to a pod's sandbox process: ttrpc calls over <pod>/control.sock. */
import { Socket } from "node:net";
import { TskataError } from "../base/errors.ts";
import { native } from "../native.ts";
import type { Method } from "../protocols/wire.ts";
import { encodeFrame, errorOf, FrameReader, REQUEST, RESPONSE, Request, Response } from "./ttrpc.ts";

interface Pending {
  readonly resolve: (response: Response) => void;
  readonly reject: (error: unknown) => void;
}

export class ControlClient implements Disposable {
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #pending = new Map<number, Pending>();
  #nextStream = 1;
  #end: TskataError | undefined;

  private constructor(fd: number) {
    this.#socket = new Socket({ fd });
    this.#socket.on("data", (bytes: Buffer) => this.#onData(bytes));
    this.#socket.on("error", () => {}); // "close" follows
    this.#socket.on("close", () => this.#fail(new TskataError("unavailable", "the sandbox process has closed the connection")));
  }

  /** By way of the folder: the path may be longer than a socket address. */
  static connect(path: string): ControlClient {
    try {
      return new ControlClient(native().connectUnix(path, "stream"));
    } catch (error) {
      throw new TskataError("unavailable", "the sandbox process does not answer: it has died or is stopping", { cause: error });
    }
  }

  async call<Req, Res>(method: Method<Req, Res>, request: Partial<Req>, timeoutMs?: number): Promise<Res> {
    if (this.#end !== undefined) throw this.#end;
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const payload = method.request.encode(request);
    const data = Request.encode({ service: method.service, method: method.name, payload, timeoutNano: BigInt(timeoutMs ?? 0) * 1_000_000n });
    const response = await this.#exchange(stream, data, timeoutMs, method.name);
    if (response.status !== undefined && response.status.code !== 0) throw errorOf(response.status);
    return method.response.decode(response.payload);
  }

  async #exchange(stream: number, data: Uint8Array, timeoutMs: number | undefined, name: string): Promise<Response> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<Response>((resolve, reject) => {
        this.#pending.set(stream, { resolve, reject });
        if (timeoutMs !== undefined) {
          timer = setTimeout(() => reject(new TskataError("timeout", `the sandbox process did not answer ${name} in ${timeoutMs / 1000} s`)), timeoutMs);
        }
        this.#socket.write(encodeFrame({ stream, type: REQUEST, data }));
      });
    } finally {
      clearTimeout(timer);
      this.#pending.delete(stream);
    }
  }

  #onData(bytes: Buffer): void {
    try {
      for (const frame of this.#reader.push(bytes)) {
        if (frame.type === RESPONSE) this.#pending.get(frame.stream)?.resolve(Response.decode(frame.data));
      }
    } catch (error) {
      this.#fail(new TskataError("internal", "read the sandbox process's answer", { cause: error }));
      this.#socket.destroy();
    }
  }

  #fail(error: TskataError): void {
    this.#end ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#end);
    this.#pending.clear();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
