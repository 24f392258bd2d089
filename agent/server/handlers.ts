/** From async functions to grpc-js handlers: the answer, or the error with its trailer. */
import type { handleServerStreamingCall, handleUnaryCall } from "@grpc/grpc-js";
import type { Method } from "../../src/protocols/wire.ts";
import { statusOf } from "./errors.ts";

/** One async function a method of a service's generated table; streams are left to the service. */
export type UnaryHandlers<Table> = {
  readonly [Key in keyof Table as Table[Key] extends { readonly responseStream: false } ? Key : never]: Table[Key] extends Method<infer Request, infer Response>
    ? (request: Request) => Promise<Response> | Response
    : never;
};

export function unary<Request, Response>(handler: (request: Request) => Promise<Response> | Response): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    void (async () => {
      try {
        callback(null, await handler(call.request));
      } catch (error) {
        callback(statusOf(error));
      }
    })();
  };
}

/** `start` begins sending and returns what ends it. */
export function streaming<Request, Response>(
  start: (request: Request, send: (response: Response) => void) => () => void,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const end = start(call.request, (response) => void call.write(response));
    call.on("cancelled", end);
    call.on("close", end);
    call.on("error", end);
  };
}
