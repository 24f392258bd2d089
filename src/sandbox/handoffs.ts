/** Descriptors that arrive over handoff.sock, kept under their token until the request that names it comes. */
import { TskataError } from "../base/errors.ts";
import { type FdReceiver, native } from "../native.ts";
import type { Handoff } from "../protocols/generated/control.ts";

const WAIT_MS = 10_000;

/** The descriptors of one process; whoever took them owns them. */
export interface Descriptors {
  readonly stdin: number | undefined;
  readonly stdout: number | undefined;
  readonly stderr: number | undefined;
  readonly proxy: number | undefined;
}

export class Handoffs {
  readonly #receiver: FdReceiver;
  readonly #arrived = new Map<string, number[]>();
  readonly #waiters = new Map<string, (fds: number[]) => void>();

  constructor(path: string) {
    this.#receiver = native().receiveFds(path, (message, fds) => this.#arrive(message.toString("latin1"), fds));
  }

  async take(handoff: Handoff | undefined): Promise<Descriptors> {
    if (handoff === undefined) return { stdin: undefined, stdout: undefined, stderr: undefined, proxy: undefined };
    const fds = this.#arrived.get(handoff.token) ?? (await this.#wait(handoff.token));
    this.#arrived.delete(handoff.token);
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
    for (const fds of this.#arrived.values()) closeAll(fds);
    this.#arrived.clear();
  }

  #arrive(token: string, fds: number[]): void {
    const waiter = this.#waiters.get(token);
    if (waiter !== undefined) waiter(fds);
    else if (this.#arrived.has(token)) closeAll(fds);
    else this.#arrived.set(token, fds);
  }

  async #wait(token: string): Promise<number[]> {
    return await new Promise((take, fail) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(token);
        fail(new TskataError("invalid", "the descriptors of the request did not arrive"));
      }, WAIT_MS);
      this.#waiters.set(token, (fds) => {
        clearTimeout(timer);
        this.#waiters.delete(token);
        take(fds);
      });
    });
  }
}

export function closeAll(fds: Iterable<number | undefined>): void {
  for (const fd of fds) if (fd !== undefined) native().closeFd(fd);
}
