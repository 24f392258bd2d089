/** agent/io/streams.ts: stdio streams wait for the process they are for. */
import { closeSync, fstatSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { Streams } from "../../agent/io/streams.ts";
import { native } from "../../src/native.ts";
import { failure } from "./helpers.ts";

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

test.serial("a stream is claimed by its id, before or after it arrives", async (t) => {
  const streams = new Streams();
  const [one, two] = native().pipe();
  const waiting = streams.claim(2n);
  streams.arrive(one, 1n);
  streams.arrive(two, 2n);
  t.is(await waiting, two);
  t.is(await streams.claim(1n), one);
  for (const fd of [one, two]) closeSync(fd);
});

test.serial("no id, and an id that is there already: closed", async (t) => {
  const streams = new Streams();
  const [one, two] = native().pipe();
  const three = native().dupFd(one);
  streams.arrive(one, 5n);
  streams.arrive(two, 5n);
  streams.arrive(three, 0n);
  t.deepEqual([one, two, three].map(isOpen), [true, false, false]);
  t.is(await streams.claim(5n), one);
  closeSync(one);
});

test.serial("a stream that nobody claims is closed after a while", async (t) => {
  const streams = new Streams({ count: 10, keepMs: 20, waitMs: 10 });
  const [one, two] = native().pipe();
  streams.arrive(one, 7n);
  t.true(isOpen(one));
  while (isOpen(one)) await after(10);
  await t.throwsAsync(streams.claim(7n), failure("unavailable", "stdio stream 7 did not arrive"));
  closeSync(two);
});
