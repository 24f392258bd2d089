/** Exits of processes, matched with who waits for them. An exit can be known before the launch that made the process returns. */
import { native } from "../../src/native.ts";

/** Tells of every process that ends, in the order of their ends. */
export type Exits = (onExit: (pid: number, status: number) => void) => void;

/** Resolves with the wait status, as waitpid(2) gives it. */
export type ExitOf = (pid: number) => Promise<number>;

interface EarlyExit {
  readonly status: number;
  /** Which exit it was, of all since the start. */
  readonly number: number;
}

export class Reaper {
  readonly #exits: Exits;
  readonly #waiting = new Map<number, (status: number) => void>();
  /**
   * Exits nobody waited for yet, oldest first, no older than the oldest launch under way: its pid may be among them. Most are of launchers and
   * orphans that nobody will ever ask for, and the kernel gives their pids again.
   */
  readonly #early = new Map<number, EarlyExit>();
  /** For each launch under way, oldest first, the number of the last exit before it. */
  readonly #launches = new Set<{ readonly after: number }>();
  #count = 0;

  constructor(exits: Exits = (onExit) => native().startReaper(onExit)) {
    this.#exits = exits;
  }

  start(): void {
    this.#exits((pid, status) => this.#onExit(pid, status));
  }

  /** Runs a launch; the exit of its process is then found by `exitOf` even if it came first. */
  async launching<T>(launch: (exitOf: ExitOf) => Promise<T>): Promise<T> {
    const underWay = { after: this.#count };
    this.#launches.add(underWay);
    try {
      return await launch((pid) => this.#exitOf(pid, underWay.after));
    } finally {
      this.#launches.delete(underWay);
      this.#forget();
    }
  }

  /** An exit from before the launch was of another process that had the pid. */
  #exitOf(pid: number, after: number): Promise<number> {
    const early = this.#early.get(pid);
    if (early === undefined || early.number <= after) return new Promise((done) => this.#waiting.set(pid, done));
    this.#early.delete(pid);
    return Promise.resolve(early.status);
  }

  #onExit(pid: number, status: number): void {
    const number = ++this.#count;
    const done = this.#waiting.get(pid);
    this.#waiting.delete(pid);
    if (done !== undefined) {
      done(status);
    } else if (this.#launches.size > 0) {
      this.#early.delete(pid); // so that it is put at the end
      this.#early.set(pid, { status, number });
    }
  }

  #forget(): void {
    const [oldest] = this.#launches;
    for (const [pid, { number }] of this.#early) {
      if (oldest !== undefined && number > oldest.after) return;
      this.#early.delete(pid);
    }
  }

  /** Exits kept, for tests. */
  get kept(): number {
    return this.#early.size;
  }
}
