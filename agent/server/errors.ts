/** Errors over gRPC: the status for tools, an ErrorDetail in the trailer for tskata. */
import { Metadata, status } from "@grpc/grpc-js";
import { type ErrorCode, errorChain, TskataError } from "../../src/base/errors.ts";
import { ERROR_TRAILER } from "../../src/protocols/agent-service.ts";
import { ErrorDetail } from "../../src/protocols/generated/agent.ts";
import { log } from "../log.ts";

const STATUS: Readonly<Record<ErrorCode, status>> = {
  invalid: status.INVALID_ARGUMENT,
  "not-found": status.NOT_FOUND,
  exists: status.ALREADY_EXISTS,
  "wrong-state": status.FAILED_PRECONDITION,
  launch: status.ABORTED,
  limit: status.RESOURCE_EXHAUSTED,
  unsupported: status.UNIMPLEMENTED,
  unavailable: status.UNAVAILABLE,
  timeout: status.DEADLINE_EXCEEDED,
  internal: status.INTERNAL,
};

/** Trailers are HTTP/2 headers: a page of them is refused. */
const MESSAGE_LIMIT = 2000;

export function statusOf(error: unknown): { code: status; details: string; metadata: Metadata } {
  const code: ErrorCode = error instanceof TskataError ? error.code : "internal";
  const message = errorChain(error).slice(0, MESSAGE_LIMIT);
  if (code === "internal") log("error", message, { stack: error instanceof Error ? error.stack : undefined });
  const metadata = new Metadata();
  metadata.set(ERROR_TRAILER, Buffer.from(ErrorDetail.encode({ code, message })));
  return { code: STATUS[code], details: code, metadata };
}
