/**
 * The guest's wall clock is the host's: read over and over, and moved by what it differs.
 *
 * A machine's clock starts with the host's time and then runs by itself: it would not learn of the host's being set or slewed by NTP, nor
 * that the host has slept. A reading is the guest's time between two of the host's; where between them is not known, so half of what lies
 * between them is what it may be wrong by. The best of some readings counts, and the clock is left alone while it may be right.
 */
import type { ClockRequest, ClockResponse } from "../protocols/generated/agent.ts";

/** After the start, and after the host's clock has been set; then twice as long each time. */
const FIRST_PAUSE_MS = 1000;
const LAST_PAUSE_MS = 64_000;
const READINGS = 4;
/** 146 years: what 64 bits of nanoseconds hold without a thought. */
const MOST_NS = 1n << 62n;

/** What the guest's clock has to be moved by, when it was read as `guest` between `before` and `after` of the host's; all in nanoseconds. */
export function clockOffset(before: bigint, guest: bigint, after: bigint): bigint {
  const offset = (before + after) / 2n - guest;
  if (offset > MOST_NS) return MOST_NS;
  return offset < -MOST_NS ? -MOST_NS : offset;
}

export interface GuestClockOptions {
  ask: (request: ClockRequest) => Promise<ClockResponse>;
  /** The host's wall clock in nanoseconds. */
  now: () => bigint;
  watch: (onSet: () => void) => { close(): void };
  onError: (error: unknown) => void;
  firstPauseMs?: number;
}

export class GuestClock {
  readonly #options: GuestClockOptions;
  readonly #firstPauseMs: number;
  readonly #watch: { close(): void };
  #closed = false;
  #hostSet = false;
  #wake = (): void => {};

  /** The host's clock is watched from here on: what a jail takes away later is not needed then. */
  constructor(options: GuestClockOptions) {
    this.#options = options;
    this.#firstPauseMs = options.firstPauseMs ?? FIRST_PAUSE_MS;
    this.#watch = options.watch(() => {
      this.#hostSet = true;
      this.#wake();
    });
  }

  /** Until it is closed. A guest that does not answer is asked again later: its clock is not what it is needed for. */
  async keep(): Promise<void> {
    // Nothing has looked at the clock yet.
    let step = true;
    let pauseMs = this.#firstPauseMs;
    while (!this.#closed) {
      this.#hostSet = false;
      await this.#correct(step).catch(this.#options.onError);
      step = await this.#hostSetWithin(pauseMs);
      pauseMs = step ? this.#firstPauseMs : Math.min(pauseMs * 2, LAST_PAUSE_MS);
    }
  }

  close(): void {
    this.#closed = true;
    this.#watch.close();
    this.#wake();
  }

  async #correct(step: boolean): Promise<void> {
    let offset = 0n;
    let between: bigint | undefined;
    for (let count = 0; count < READINGS && !this.#closed; count++) {
      const before = this.#options.now();
      const { realtimeNs } = await this.#options.ask({ offsetNs: 0n, step: false });
      const after = this.#options.now();
      if (after < before || (between !== undefined && after - before >= between)) continue; // the host's own clock has been set meanwhile; or no better
      between = after - before;
      offset = clockOffset(before, realtimeNs, after);
    }
    if (between === undefined || this.#hostSet) return;
    const wrong = offset < 0n ? -offset : offset;
    if (wrong > between / 2n) await this.#options.ask({ offsetNs: offset, step });
  }

  async #hostSetWithin(milliseconds: number): Promise<boolean> {
    if (this.#hostSet || this.#closed) return this.#hostSet;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((wake) => {
      this.#wake = wake;
      timer = setTimeout(wake, milliseconds);
      timer.unref();
    });
    clearTimeout(timer);
    return this.#hostSet;
  }
}
