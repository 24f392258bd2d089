/** Streams of stdio from the host: each a vsock connection that opened with its id, waiting here for the process it is for. */
import { type ClaimLimits, Claims } from "../../src/base/claims.ts";
import { TskataError } from "../../src/base/errors.ts";
import { native } from "../../src/native.ts";

/** The host connects before it asks, so the id is nearly always there; a host that is killed in between never asks. */
const LIMITS: ClaimLimits = { count: 1024, keepMs: 120_000, waitMs: 10_000 };

export class Streams {
  readonly #claims: Claims<bigint, number>;

  constructor(limits: ClaimLimits = LIMITS) {
    this.#claims = new Claims(limits, (fd) => native().closeFd(fd));
  }

  arrive(fd: number, id: bigint): void {
    if (id === 0n) native().closeFd(fd);
    else this.#claims.arrive(id, fd);
  }

  /** The stream's descriptor, which is the caller's from then on. */
  async claim(id: bigint): Promise<number> {
    const fd = await this.#claims.claim(id);
    if (fd === undefined) throw new TskataError("unavailable", `stdio stream ${id} did not arrive`);
    return fd;
  }
}
