/** The one error type that crosses module borders: a stable code for programs, a sentence for people, the cause below it. */

export type ErrorCode =
  | "invalid" // what was asked for is malformed
  | "not-found"
  | "exists"
  | "wrong-state"
  | "launch" // a container process could not be started
  | "limit"
  | "unsupported"
  | "unavailable" // the host, VM or agent cannot serve
  | "timeout" // it did not answer in time
  | "internal";

export class TskataError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "TskataError";
    this.code = code;
  }
}

/** Causes may go in a circle. */
const MAX_DEPTH = 16;

/** The messages of an error and its causes, outermost first, as one sentence: "start vm: open /dev/kvm: EACCES". */
export function errorChain(error: unknown): string {
  const parts: string[] = [];
  let current = error;
  for (let depth = 0; current !== undefined && current !== null && depth < MAX_DEPTH; depth++) {
    const message = current instanceof Error ? current.message : String(current);
    if (message !== "" && !parts.at(-1)?.includes(message)) parts.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
}
