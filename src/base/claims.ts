/**
 * Things that come by one way under a key, and are asked for by that key on another: whichever is first waits for the other, for
 * a limited time and in a limited number. What nobody claims is discarded, what does not come is undefined.
 */
export interface ClaimLimits {
  /** So many things wait at most; a further one is discarded. */
  readonly count: number;
  /** A thing waits so long for its claim. */
  readonly keepMs: number;
  /** A claim waits so long for its thing. */
  readonly waitMs: number;
}

interface Kept<Thing> {
  readonly thing: Thing;
  readonly timer: NodeJS.Timeout;
}

interface Waiter<Thing> {
  readonly take: (thing: Thing | undefined) => void;
  readonly timer: NodeJS.Timeout;
}

export class Claims<Key, Thing> {
  readonly #limits: ClaimLimits;
  readonly #discard: (thing: Thing) => void;
  readonly #kept = new Map<Key, Kept<Thing>>();
  readonly #waiters = new Map<Key, Waiter<Thing>>();

  constructor(limits: ClaimLimits, discard: (thing: Thing) => void) {
    this.#limits = limits;
    this.#discard = discard;
  }

  /** A key that is there already keeps its first thing. */
  arrive(key: Key, thing: Thing): void {
    const waiter = this.#waiters.get(key);
    if (waiter !== undefined) this.#end(key, waiter, thing);
    else if (this.#kept.has(key) || this.#kept.size >= this.#limits.count) this.#discard(thing);
    else this.#kept.set(key, { thing, timer: setTimeout(() => this.#drop(key), this.#limits.keepMs).unref() });
  }

  /** The thing, which is the caller's from then on; undefined when it has not come in time. */
  async claim(key: Key): Promise<Thing | undefined> {
    const kept = this.#kept.get(key);
    if (kept === undefined) return await this.#wait(key);
    this.#kept.delete(key);
    clearTimeout(kept.timer);
    return kept.thing;
  }

  /** Discards what waits, and ends the claims that do. */
  close(): void {
    for (const key of [...this.#kept.keys()]) this.#drop(key);
    for (const [key, waiter] of [...this.#waiters]) this.#end(key, waiter, undefined);
  }

  #drop(key: Key): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    clearTimeout(kept.timer);
    this.#discard(kept.thing);
  }

  async #wait(key: Key): Promise<Thing | undefined> {
    if (this.#waiters.has(key)) return undefined; // one claim a key
    return await new Promise((take) => {
      const waiter = { take, timer: setTimeout(() => this.#end(key, waiter, undefined), this.#limits.waitMs) };
      this.#waiters.set(key, waiter);
    });
  }

  #end(key: Key, { take, timer }: Waiter<Thing>, thing: Thing | undefined): void {
    clearTimeout(timer);
    this.#waiters.delete(key);
    take(thing);
  }
}
