/** Descriptors that arrive over handoff.sock, kept under their token until the request that names it comes. */
import { type ClaimLimits, Claims } from "../base/claims.ts";
import { TskataError } from "../base/errors.ts";
import { type Closable, native } from "../native.ts";
import type { Handoff } from "../protocols/generated/control.ts";

/**
 * The request follows its descriptors at once, over another socket; a command killed in between never sends it, and whoever reads the other
 * end of its pipes waits until these are closed.
 */
const LIMITS: ClaimLimits = { count: 256, keepMs: 10_000, waitMs: 10_000 };

/** The descriptors of one process; whoever took them owns them. */
export interface Descriptors {
  readonly stdin: number | undefined;
  readonly stdout: number | undefined;
  readonly stderr: number | undefined;
  readonly proxy: number | undefined;
}

export class Handoffs {
  readonly #receiver: Closable;
  readonly #claims: Claims<string, number[]>;

  constructor(path: string, limits: ClaimLimits = LIMITS) {
    this.#claims = new Claims<string, number[]>(limits, closeAll);
    this.#receiver = native().receiveFds(path, (message, fds) => this.#claims.arrive(message.toString("latin1"), fds));
  }

  async take(handoff: Handoff | undefined): Promise<Descriptors> {
    if (handoff === undefined) return { stdin: undefined, stdout: undefined, stderr: undefined, proxy: undefined };
    const fds = await this.#claims.claim(handoff.token);
    if (fds === undefined)
      throw new TskataError("invalid", "the descriptors of the request did not arrive: too many open files in the sandbox process, or the command has died");
    const names = (["stdin", "stdout", "stderr", "proxy"] as const).filter((name) => handoff[name]);
    if (names.length !== fds.length) {
      closeAll(fds);
      throw new TskataError("invalid", `${fds.length} descriptors were handed over where ${names.length} were announced`);
    }
    const taken = Object.fromEntries(names.map((name, index) => [name, fds[index]]));
    return { stdin: taken["stdin"], stdout: taken["stdout"], stderr: taken["stderr"], proxy: taken["proxy"] };
  }

  close(): void {
    this.#receiver.close();
    this.#claims.close();
  }
}

export function closeAll(fds: Iterable<number | undefined>): void {
  for (const fd of fds) if (fd !== undefined) native().closeFd(fd);
}
