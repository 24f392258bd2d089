/** src/base/claims.ts: a thing and its claim find each other in whatever order, and neither waits for ever. */
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { Claims } from "../../src/base/claims.ts";

const long = 60_000;

function claims(limits: { count?: number; keepMs?: number; waitMs?: number }): { claims: Claims<string, number>; discarded: number[] } {
  const discarded: number[] = [];
  return { claims: new Claims({ count: 2, keepMs: long, waitMs: long, ...limits }, (thing) => discarded.push(thing)), discarded };
}

test("either may be first; a thing is claimed once", async (t) => {
  const { claims: some, discarded } = claims({ waitMs: 20 });
  const waiting = some.claim("a");
  some.arrive("a", 1);
  some.arrive("b", 2);
  t.deepEqual([await waiting, await some.claim("b")], [1, 2]);
  t.is(await some.claim("b"), undefined);
  t.deepEqual(discarded, []);
});

test("more than the count, and a key that is there already, are discarded at once", async (t) => {
  const { claims: some, discarded } = claims({});
  for (const [index, key] of ["a", "b", "a", "c"].entries()) some.arrive(key, index);
  t.deepEqual(discarded, [2, 3]);
  t.deepEqual([await some.claim("a"), await some.claim("b")], [0, 1]);
  some.arrive("d", 4); // there is room again
  t.is(await some.claim("d"), 4);
});

test("what nobody claims is discarded after its time, and does not keep the process", async (t) => {
  const { claims: some, discarded } = claims({ keepMs: 30, waitMs: 10 });
  some.arrive("a", 1);
  some.arrive("b", 2);
  t.is(await some.claim("b"), 2);
  await after(200);
  t.deepEqual(discarded, [1]);
  t.is(await some.claim("a"), undefined);
});

test("close: what waits is discarded, who waits is told; a second claim of a key has nothing to wait for", async (t) => {
  const { claims: some, discarded } = claims({});
  some.arrive("a", 1);
  const waiting = some.claim("b");
  t.is(await some.claim("b"), undefined);
  some.close();
  t.is(await waiting, undefined);
  t.deepEqual(discarded, [1]);
});
