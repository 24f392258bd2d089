/**
 * Every stream of a container's process, over create and exec, carries what it was given: a gibibyte in pieces of random sizes with pauses
 * on both sides (terminals an eighth of it, unless TSKATA_TEST_FULL=1), and what happens when one end or both go away.
 * TSKATA_STREAM_TURNS: how many gibibytes, 10 unless set.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { grownSince, startWatcher, takeCensus } from "../helpers/census.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { startPod } from "../helpers/pod.ts";
import { carry, caseOf, installPattern, PATTERN, STREAMS, shell, VERBS } from "../helpers/streams.ts";
import { amount, describe, hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("streams");
test.after.always("clean up", async () => await scratch.cleanUp());

const POD = "c";
const pattern = join(scratch.folder, "pattern");
const turns = Number(process.env["TSKATA_STREAM_TURNS"] ?? STREAMS.length * VERBS.length);
const long = process.env["TSKATA_TEST_FULL"] === "1";
const MEBIBYTE = 2 ** 20;
const bytes = 1024 * amount * MEBIBYTE;

test.before("a pod with the program that writes and checks streams", async (t) => {
  t.timeout(hangLimitMs);
  buildFixture("pattern", pattern);
  await startPod(scratch, POD);
  installPattern(join(scratch.folder, "bundle-0"));
});

for (let turn = 0; turn < turns; turn++) {
  const it = caseOf(turn, bytes, long ? bytes : bytes / 8);
  test.serial(`turn ${turn}: ${it.bytes / MEBIBYTE} MiB on ${it.stream} of ${it.verb}`, async (t) => {
    t.timeout(3_600_000);
    t.is(await carry(scratch, POD, pattern, `turn-${turn}`, it), `whole: ${it.bytes} of ${it.bytes}`);
  });
}

/** Processes of the program in the container. */
async function patterns(): Promise<string> {
  return await scratch.sh(POD, "ps | grep -c '[/]bin/pattern' || true");
}

async function untilNone(): Promise<void> {
  const end = Date.now() + hangLimitMs;
  while ((await patterns()) !== "0") {
    if (Date.now() > end) throw new Error("the process still runs in the container");
    await after(200);
  }
}

test.serial("a reader that is killed ends the writer", async (t) => {
  t.timeout(hangLimitMs * 2);
  const outcome = await shell(scratch, `tskata exec ${POD} ${PATTERN} write 1 100000000000 2>/dev/null | head -c 1000000 | wc -c; echo "\${PIPESTATUS[0]}"`);
  const [counted, status] = outcome.stdout.trim().split("\n");
  t.is(counted, "1000000", describe(outcome));
  // SIGPIPE, or the program's own exit on EPIPE.
  t.true(["1", "141"].includes(status ?? ""), describe(outcome));
  await untilNone();
});

test.serial("a writer that is killed: all it wrote arrives, then the end and its status", async (t) => {
  t.timeout(hangLimitMs * 2);
  const script = `echo begun; ${PATTERN} write 1 1000000; kill -9 $$`;
  const outcome = await shell(scratch, `tskata exec ${POD} sh -c '${script}' | wc -c; echo "\${PIPESTATUS[0]}"`);
  t.deepEqual(outcome.stdout.trim().split("\n"), ["1000006", "137"], describe(outcome));
  await untilNone();
});

test.serial("both ends killed at once: nothing is left in the container", async (t) => {
  t.timeout(hangLimitMs * 2);
  const outcome = await shell(
    scratch,
    `tskata exec ${POD} ${PATTERN} write 1 100000000000 2>/dev/null | sleep 100000 & sleep 3; kill -9 $!; tskata exec ${POD} pkill -9 pattern; wait; echo over`,
  );
  t.is(outcome.stdout.trim(), "over", describe(outcome));
  await untilNone();
});

test.serial("the exit is told when everything is read, not before", async (t) => {
  t.timeout(hangLimitMs * 2);
  const child = scratch.spawn(["exec", POD, PATTERN, "write", "3", String(8 * 2 ** 20)]);
  child.stdin?.end();
  let exited = false;
  child.once("exit", () => {
    exited = true;
  });
  await new Promise((wake) => child.stdout?.once("readable", wake));
  // The process has long ended if anything of the way keeps 8 MiB for it.
  await after(3000);
  t.false(exited);
  let seen = 0;
  child.stdout?.on("data", (part: Buffer) => {
    seen += part.length;
  });
  const code = await new Promise((done) => child.once("close", done));
  t.deepEqual([code, seen], [0, 8 * 2 ** 20]);
});

test.serial("records up to a pipe's atomic size of several writers are not torn", async (t) => {
  t.timeout(hangLimitMs * 2);
  // PIPE_BUF, pipe(7): 4096 bytes with the newline.
  const writer = 'line=$(printf "%4095s" | tr " " $0); n=0; while [ $n -lt 200 ]; do echo $line; n=$((n+1)); done';
  const script = `for letter in a b c d e f g h; do sh -c '${writer.replaceAll("'", "'\\''")}' $letter & done; wait`;
  const outcome = await scratch.exec(POD, ["sh", "-c", script]);
  const lines = outcome.stdout.trimEnd().split("\n");
  t.is(outcome.code, 0, describe(outcome));
  t.is(lines.length, 1600);
  t.deepEqual(
    lines.filter((line) => line.length !== 4095 || line !== (line[0] ?? "").repeat(4095)).map((line) => line.length),
    [],
  );
});

const execs = long ? 2000 : Math.ceil(160 * amount);
/** By then every pool has what it needs. */
const first = Math.ceil(execs / (long ? 10 : 2));
test.serial(`${execs} short execs, eight at a time, are each whole, and leave nothing behind in the pod's processes and its guest`, async (t) => {
  t.timeout(7_200_000);
  const folder = join(scratch.folder, "execs");
  mkdirSync(folder);
  const one = `tskata exec ${POD} sh -c "echo out $1; echo err $1 >&2; exit $(($1 % 7))" >${folder}/$1.out 2>${folder}/$1.err; echo $? >${folder}/$1.status`;
  const file = join(folder, "one.sh");
  // Among them, for what they might leave behind: with a terminal, and of a program that is not there.
  const others = `case $(($1 % 8)) in 3) tskata exec --tty ${POD} true </dev/null >/dev/null;; 7) tskata exec ${POD} /no/such 2>/dev/null;; esac; true`;
  writeFileSync(file, `${one}\n${others}\n`);
  const run = async (from: number, to: number): Promise<unknown> =>
    await shell(scratch, `seq ${from} ${to} | xargs -P 8 -n 1 bash ${file}`, { timeoutMs: 7_200_000 });
  await startWatcher(scratch, POD);
  await run(1, first);
  const before = await takeCensus(scratch, POD);
  await run(first + 1, execs);
  const { grown, now } = await grownSince(scratch, POD, before);
  t.log(`after ${first}:`, before, `after ${execs}:`, now);
  const outcome = await shell(scratch, `cd ${folder}; for i in $(seq 1 ${execs}); do echo "$i $(cat $i.status) $(cat $i.out) $(cat $i.err)"; done`);
  const expected = Array.from({ length: execs }, (_, index) => `${index + 1} ${(index + 1) % 7} out ${index + 1} err ${index + 1}`);
  t.deepEqual(outcome.stdout.trim().split("\n"), expected);
  t.deepEqual(grown, []);
});
