/** Streams of stdio from the host: each a vsock connection that opened with its id, waiting here for the process it is for. */
import { TskataError } from "../../src/base/errors.ts";
import { native } from "../../src/native.ts";

/** The host connects before it asks, so the id is nearly always there; it may still be on its way. */
const WAIT_MS = 10_000;
/** Streams nobody asks for would be a leak. */
const MAX_WAITING = 1024;

interface Waiter {
  readonly take: (fd: number) => void;
  readonly timer: NodeJS.Timeout;
}

export class Streams {
  readonly #arrived = new Map<bigint, number>();
  readonly #waiters = new Map<bigint, Waiter>();

  arrive(fd: number, id: bigint): void {
    const waiter = this.#waiters.get(id);
    if (waiter !== undefined) {
      clearTimeout(waiter.timer);
      this.#waiters.delete(id);
      waiter.take(fd);
      return;
    }
    if (id === 0n || this.#arrived.has(id) || this.#arrived.size >= MAX_WAITING) native().closeFd(fd);
    else this.#arrived.set(id, fd);
  }

  /** The stream's descriptor, which is the caller's from then on. */
  async claim(id: bigint): Promise<number> {
    const fd = this.#arrived.get(id);
    if (fd !== undefined) {
      this.#arrived.delete(id);
      return fd;
    }
    return await new Promise((take, fail) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(id);
        fail(new TskataError("unavailable", `stdio stream ${id} did not arrive`));
      }, WAIT_MS);
      this.#waiters.set(id, { take, timer });
    });
  }
}
