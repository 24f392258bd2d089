/** Typed calls to the agent: gRPC over the vsock device's unix socket. What comes back is a guest's word. */
import { Client, type ClientReadableStream, credentials, type ServiceError } from "@grpc/grpc-js";
import { type ErrorCode, TskataError } from "../base/errors.ts";
import { ERROR_TRAILER, methodDefinition } from "../protocols/agent-service.ts";
import { ErrorDetail, type Event, SandboxService } from "../protocols/generated/agent.ts";
import type { Method } from "../protocols/wire.ts";

const CODES = new Set<string>([
  "invalid",
  "not-found",
  "exists",
  "wrong-state",
  "launch",
  "limit",
  "unsupported",
  "unavailable",
  "timeout",
  "internal",
] satisfies ErrorCode[]);
/** A config.json with a large seccomp profile is some 100 KiB. */
const MAX_MESSAGE = 16 * 1024 * 1024;

export class AgentClient {
  readonly #client: Client;

  /** `socketPath` connects straight to the agent's port. */
  constructor(socketPath: string) {
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": MAX_MESSAGE,
      "grpc.max_send_message_length": MAX_MESSAGE,
      // One guest, one connection: nothing to look up, nothing to balance.
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_retries": 0,
    });
  }

  /**
   * Without a time limit the call waits for as long as the guest lives. The limit is no deadline of gRPC's, which is a time of the wall clock,
   * and of the agent's, too.
   */
  async call<Request, Response>(method: Method<Request, Response>, request: Partial<Request>, timeoutMs?: number): Promise<Response> {
    const definition = methodDefinition(method);
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          definition.path,
          definition.requestSerialize,
          definition.responseDeserialize,
          request as Request,
          (error, response) => {
            if (error !== null) reject(fromServiceError(error, method.name));
            else if (response === undefined) reject(new TskataError("internal", `${method.name}: the agent gave no answer`));
            else resolve(response);
          },
        );
        if (timeoutMs === undefined) return;
        timer = setTimeout(() => {
          reject(new TskataError("timeout", `the agent in the guest did not answer ${method.name} in ${timeoutMs / 1000} s`));
          call.cancel();
        }, timeoutMs);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Hears of the guest's events until the stream ends, which `onEnd` is told. */
  events(onEvent: (event: Event) => void, onEnd: () => void): void {
    const definition = methodDefinition(SandboxService.events);
    const stream: ClientReadableStream<Event> = this.#client.makeServerStreamRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      {},
    );
    stream.on("data", onEvent);
    stream.on("error", () => {}); // "close" follows
    stream.on("close", onEnd);
  }

  close(): void {
    this.#client.close();
  }
}

function fromServiceError(error: ServiceError, method: string): TskataError {
  const [trailer] = error.metadata?.get(ERROR_TRAILER) ?? [];
  if (Buffer.isBuffer(trailer)) {
    const detail = decodeDetail(trailer);
    if (detail !== undefined) return detail;
  }
  return new TskataError("unavailable", `${method}: the agent in the guest does not answer`, { cause: error });
}

function decodeDetail(bytes: Buffer): TskataError | undefined {
  try {
    const { code, message } = ErrorDetail.decode(bytes);
    return new TskataError(CODES.has(code) ? (code as ErrorCode) : "internal", printable(message));
  } catch {
    return undefined; // not one of ours
  }
}

/** It ends on somebody's terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\t\n\x20-\x7e\u00a0-\uffff]/g, "?").slice(0, 4096);
}
