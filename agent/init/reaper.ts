/** Exits of processes, matched with who waits for them. An exit can be known before the launch that made the process returns. */
import { native } from "../../src/native.ts";

export class Reaper {
  readonly #waiting = new Map<number, (status: number) => void>();
  /** Exits nobody waited for yet, kept only while a launch is under way: its pid may be among them. */
  readonly #early = new Map<number, number>();
  #launches = 0;

  start(): void {
    native().startReaper((pid, status) => this.#onExit(pid, status));
  }

  /** Runs a launch; the exit of its process is then found by `exitOf` even if it came first. */
  async launching<T>(launch: () => Promise<T>): Promise<T> {
    this.#launches++;
    try {
      return await launch();
    } finally {
      this.#launches--;
      // Those who awaited the launch ask in this turn of the loop.
      setImmediate(() => {
        if (this.#launches === 0) this.#early.clear();
      });
    }
  }

  /** Resolves with the wait status, as waitpid(2) gives it. */
  exitOf(pid: number): Promise<number> {
    const early = this.#early.get(pid);
    if (early !== undefined) {
      this.#early.delete(pid);
      return Promise.resolve(early);
    }
    return new Promise((done) => this.#waiting.set(pid, done));
  }

  #onExit(pid: number, status: number): void {
    const done = this.#waiting.get(pid);
    this.#waiting.delete(pid);
    if (done !== undefined) done(status);
    else if (this.#launches > 0) this.#early.set(pid, status);
  }
}
