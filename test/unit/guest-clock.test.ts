/** How the sandbox keeps the guest's wall clock (src/sandbox/guest-clock.ts), with a guest whose clock and delays are the test's. */
import test from "ava";
import type { ClockRequest, ClockResponse } from "../../src/protocols/generated/agent.ts";
import { clockOffset, GuestClock } from "../../src/sandbox/guest-clock.ts";

const MS = 1_000_000n;
const FIRST_PAUSE_MS = 2;

/** A host's clock, and a guest's that is `ahead` of it; asking and answering take the host the times given, over and over. */
class Pair {
  host = 1_700_000_000_000n * MS;
  ahead: bigint;
  readonly moved: ClockRequest[] = [];
  readonly clock: GuestClock;
  readonly errors: unknown[] = [];
  hostSet = (): void => {};
  watched = true;
  #asked = 0;

  constructor(ahead: bigint, delays: readonly (readonly [to: bigint, fro: bigint])[], answer?: (request: ClockRequest, count: number) => bigint) {
    this.ahead = ahead;
    const ask = async (request: ClockRequest): Promise<ClockResponse> => {
      await Promise.resolve();
      const count = this.#asked++;
      const [to, fro] = delays[count % delays.length] ?? [0n, 0n];
      this.host += to;
      if (request.offsetNs !== 0n) this.moved.push(request);
      this.ahead += request.offsetNs;
      const realtimeNs = answer?.(request, count) ?? this.host + this.ahead;
      this.host += fro;
      return { realtimeNs };
    };
    this.clock = new GuestClock({
      ask,
      now: () => this.host,
      watch: (onSet) => {
        this.hostSet = onSet;
        return { close: () => (this.watched = false) };
      },
      onError: (error) => this.errors.push(error),
      firstPauseMs: FIRST_PAUSE_MS,
    });
  }

  get asked(): number {
    return this.#asked;
  }

  /** Keeps the clock until `done`, then until the keeper has ended. */
  async until(done: () => boolean): Promise<void> {
    const kept = this.clock.keep();
    while (!done()) await new Promise((wake) => setTimeout(wake, 1));
    this.clock.close();
    await kept;
  }
}

test("a reading is taken for the middle of what it took", (t) => {
  t.is(clockOffset(1000n, 1500n, 2000n), 0n);
  t.is(clockOffset(1000n, 500n, 2000n), 1000n);
  t.is(clockOffset(1000n, 2500n, 2000n), -1000n);
});

test("an offset has 64 bits, whatever a guest says", (t) => {
  const most = (1n << 64n) - 1n;
  for (const guest of [0n, most]) {
    const offset = clockOffset(most, guest, most);
    t.true(offset >= -(1n << 62n) && offset <= 1n << 62n);
  }
});

test("the shortest of some readings counts, and the first difference is made good at once", async (t) => {
  const pair = new Pair(-3000n * MS, [
    [40n * MS, 2n * MS],
    [1n * MS, 1n * MS],
    [3n * MS, 90n * MS],
  ]);
  await pair.until(() => pair.moved.length > 0);
  t.deepEqual(pair.moved[0], { offsetNs: 3000n * MS, step: true });
  t.is(pair.ahead, 0n);
});

test("a clock that may be right is left alone", async (t) => {
  const pair = new Pair(-4n * MS, [[5n * MS, 5n * MS]]);
  await pair.until(() => pair.asked >= 12);
  t.deepEqual(pair.moved, []);
});

test("what goes wrong later is slewed", async (t) => {
  const pair = new Pair(0n, [[MS, MS]]);
  await pair.until(() => {
    if (pair.asked >= 8 && pair.moved.length === 0 && pair.ahead === 0n) pair.ahead = 50n * MS;
    return pair.moved.length > 0;
  });
  t.deepEqual(pair.moved[0], { offsetNs: -50n * MS, step: false });
});

test("the host's clock has been set: the guest's follows at once, by a step", async (t) => {
  const pair = new Pair(0n, [[MS, MS]]);
  let rounds = 0;
  await pair.until(() => {
    // Far into the pauses that double: nothing but being told wakes it in time.
    if (pair.asked >= 4 * 8 && rounds++ === 0) {
      pair.host += 5000n * MS;
      pair.ahead -= 5000n * MS;
      pair.hostSet();
    }
    return pair.moved.length > 0;
  });
  t.deepEqual(pair.moved, [{ offsetNs: 5000n * MS, step: true }]);
});

test("a reading during which the host's clock went back is none", async (t) => {
  const pair = new Pair(0n, [
    [MS, MS],
    [MS, -7000n * MS],
  ]);
  await pair.until(() => pair.asked >= 4);
  t.true(pair.moved.every(({ offsetNs }) => offsetNs > -100n * MS));
});

test("a guest that does not answer is asked again", async (t) => {
  const pair = new Pair(-900n * MS, [[MS, MS]], (_request, count) => {
    if (count < 3) throw new Error("no answer");
    return pair.host + pair.ahead;
  });
  await pair.until(() => pair.moved.length > 0);
  t.is(pair.errors.length, 3);
  t.is(pair.ahead, 0n);
});

test("closed, it asks no more and watches no more", async (t) => {
  const pair = new Pair(0n, [[MS, MS]]);
  await pair.until(() => pair.asked >= 4);
  const { asked } = pair;
  await new Promise((wake) => setTimeout(wake, 20 * FIRST_PAUSE_MS));
  t.is(pair.asked, asked);
  t.false(pair.watched);
});
