/**
 * ttrpc (github.com/containerd/ttrpc, PROTOCOL.md): unary calls over a stream socket.
 *
 * A frame is u32 data length, u32 stream id (odd for requests), u8 type (1 request, 2 response), u8 flags, all big-endian;
 * then the data, a Request or a Response message.
 */
import { type ErrorCode, TskataError } from "../base/errors.ts";
import { defineCodec } from "../protocols/wire.ts";

export const REQUEST = 1;
export const RESPONSE = 2;
const HEADER = 10;
/** ttrpc's own limit. */
const MAX_DATA = 4 * 1024 * 1024;

export interface Frame {
  readonly stream: number;
  readonly type: number;
  readonly data: Uint8Array;
}

export function encodeFrame({ stream, type, data }: Frame): Buffer {
  if (data.length > MAX_DATA) throw new TskataError("limit", `a message of ${data.length} bytes is larger than ${MAX_DATA}`);
  const header = Buffer.alloc(HEADER);
  header.writeUInt32BE(data.length, 0);
  header.writeUInt32BE(stream, 4);
  header.writeUInt8(type, 8);
  return Buffer.concat([header, data]);
}

/** Cuts a byte stream into frames; throws on one that is too large. */
export class FrameReader {
  #waiting: Buffer = Buffer.alloc(0);

  push(bytes: Buffer): Frame[] {
    this.#waiting = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes]);
    const frames: Frame[] = [];
    while (this.#waiting.length >= HEADER) {
      const length = this.#waiting.readUInt32BE(0);
      if (length > MAX_DATA) throw new TskataError("invalid", `a frame of ${length} bytes is larger than ${MAX_DATA}`);
      if (this.#waiting.length < HEADER + length) break;
      frames.push({ stream: this.#waiting.readUInt32BE(4), type: this.#waiting.readUInt8(8), data: this.#waiting.subarray(HEADER, HEADER + length) });
      this.#waiting = this.#waiting.subarray(HEADER + length);
    }
    return frames;
  }
}

export interface Request {
  service: string;
  method: string;
  payload: Uint8Array;
  /** 0: none. */
  timeoutNano: bigint;
}

export const Request = defineCodec<Request>(
  "ttrpc.Request",
  (message, writer) => {
    if (message.service !== undefined) writer.tag(10).string(message.service);
    if (message.method !== undefined) writer.tag(18).string(message.method);
    if (message.payload !== undefined) writer.tag(26).bytes(message.payload);
    if (message.timeoutNano !== undefined && message.timeoutNano !== 0n) writer.tag(32).int64(message.timeoutNano);
  },
  (reader) => {
    const request: Request = { service: "", method: "", payload: new Uint8Array(0), timeoutNano: 0n };
    for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
      if (tag === 10) request.service = reader.string();
      else if (tag === 18) request.method = reader.string();
      else if (tag === 26) request.payload = reader.bytes();
      else if (tag === 32) request.timeoutNano = reader.int64();
      else reader.skipField(tag);
    }
    return request;
  },
);

/** google.rpc.Status; code 0 is success. */
export interface Status {
  code: number;
  message: string;
}

const Status = defineCodec<Status>(
  "google.rpc.Status",
  (message, writer) => {
    if (message.code !== undefined && message.code !== 0) writer.tag(8).int32(message.code);
    if (message.message !== undefined && message.message !== "") writer.tag(18).string(message.message);
  },
  (reader) => {
    const status: Status = { code: 0, message: "" };
    for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
      if (tag === 8) status.code = reader.int32();
      else if (tag === 18) status.message = reader.string();
      else reader.skipField(tag);
    }
    return status;
  },
);

export interface Response {
  status: Status | undefined;
  payload: Uint8Array;
}

export const Response = defineCodec<Response>(
  "ttrpc.Response",
  (message, writer) => {
    if (message.status !== undefined) writer.tag(10).message(Status, message.status);
    if (message.payload !== undefined && message.payload.length > 0) writer.tag(18).bytes(message.payload);
  },
  (reader) => {
    const response: Response = { status: undefined, payload: new Uint8Array(0) };
    for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
      if (tag === 10) response.status = reader.message(Status);
      else if (tag === 18) response.payload = reader.bytes();
      else reader.skipField(tag);
    }
    return response;
  },
);

/** Our codes as gRPC's. */
const CODES: Readonly<Record<ErrorCode, number>> = {
  invalid: 3,
  timeout: 4,
  "not-found": 5,
  exists: 6,
  limit: 8,
  "wrong-state": 9,
  launch: 10,
  unsupported: 12,
  internal: 13,
  unavailable: 14,
};

export function statusOf(code: ErrorCode, message: string): Status {
  return { code: CODES[code], message };
}

export function errorOf({ code, message }: Status): TskataError {
  const found = (Object.keys(CODES) as ErrorCode[]).find((name) => CODES[name] === code);
  return new TskataError(found ?? "internal", message);
}
