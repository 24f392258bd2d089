/**
 * The agent's services in grpc-js's terms, for the server in the guest and the client on the host.
 *
 * A generated method table becomes a ServiceDefinition (`server.addService`) or one MethodDefinition
 * (`client.makeUnaryRequest(path, serialize, deserialize, …)`). Only types of grpc-js are imported here.
 */
import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import type { Method } from "./wire.ts";

export { ContainersService, ProcessesService, SandboxService } from "./generated/agent.ts";

/** Guest vsock ports: gRPC, and the raw stdio streams that open with their id. */
export const AGENT_PORT = 1024;
export const STDIO_PORT = 1025;
/** Trailer of a failed call: an ErrorDetail. */
export const ERROR_TRAILER = "tskata-error-bin";
/** Bytes of the big-endian stream id a stdio stream opens with. */
export const STREAM_ID_BYTES = 8;

export type RequestOf<M> = M extends { readonly request: { decode(bytes: Uint8Array): infer Request } } ? Request : never;
export type ResponseOf<M> = M extends { readonly response: { decode(bytes: Uint8Array): infer Response } } ? Response : never;

/** A gRPC path: "/tskata.agent.v1.Sandbox/Check". */
export function methodPath(method: { readonly service: string; readonly name: string }): string {
  return `/${method.service}/${method.name}`;
}

export function methodDefinition<Request, Response>(method: Method<Request, Response>): MethodDefinition<Request, Response> {
  return {
    path: methodPath(method),
    requestStream: false,
    responseStream: method.responseStream,
    requestSerialize: (message) => asBuffer(method.request.encode(message)),
    requestDeserialize: (bytes) => method.request.decode(bytes),
    responseSerialize: (message) => asBuffer(method.response.encode(message)),
    responseDeserialize: (bytes) => method.response.decode(bytes),
  };
}

/** grpc-js wants Buffers; this is a view, not a copy. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A generated table of methods, whatever their messages. */
export type ServiceTable = Readonly<Record<string, { readonly request: unknown; readonly response: unknown }>>;

/** All of a service's methods under the keys of its generated table. */
export function serviceDefinition(table: ServiceTable): ServiceDefinition {
  const definition: Record<string, MethodDefinition<unknown, unknown>> = {};
  for (const [key, method] of Object.entries(table)) definition[key] = methodDefinition(method as Method<unknown, unknown>);
  return definition;
}
