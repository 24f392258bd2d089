/** agent/io/streams.ts: stdio streams wait for the process they are for. */
import { closeSync, fstatSync } from "node:fs";
import test from "ava";
import { Streams } from "../../agent/io/streams.ts";
import { native } from "../../src/native.ts";

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
