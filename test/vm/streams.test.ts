/**
 * Every stream of a container's process, over create and exec, carries what it was given: a gibibyte in pieces of random sizes with pauses
 * on both sides (terminals an eighth of it, unless TSKATA_TEST_FULL=1), and what happens when one end or both go away.
 * TSKATA_STREAM_TURNS: how many gibibytes, 10 unless set.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { grownSince, startWatcher, takeCensus } from "../helpers/census.ts";
import { buildFixture } from "../helpers/fixtures.ts";
import { startPod } from "../helpers/pod.ts";
import { Ends, type EndsCase, guestKiller, guestProcesses, guestWrites } from "../helpers/stream-ends.ts";
import { carry, caseOf, installPattern, PATTERN, STREAMS, type StreamCase, shell, VERBS } from "../helpers/streams.ts";
import { amount, describe, hangLimitMs, Scratch } from "../helpers/tskata.ts";
import { until } from "../helpers/waits.ts";

const scratch = new Scratch("streams");
test.after.always("clean up", async () => await scratch.cleanUp());

const POD = "c";
/** Of test/fixtures, on the host. */
const programs = { pattern: join(scratch.folder, "pattern"), reap: join(scratch.folder, "reap"), records: join(scratch.folder, "records") };
const turns = Number(process.env["TSKATA_STREAM_TURNS"] ?? STREAMS.length * VERBS.length);
const long = process.env["TSKATA_TEST_FULL"] === "1";
const MEBIBYTE = 2 ** 20;
const bytes = 1024 * amount * MEBIBYTE;

test.before("a pod with the program that writes and checks streams, and one who sees all that runs in it", async (t) => {
  t.timeout(hangLimitMs);
  for (const [name, file] of Object.entries(programs)) buildFixture(name, file);
  await startPod(scratch, POD);
  installPattern(join(scratch.folder, "bundle-0"));
  await startWatcher(scratch, POD);
});

for (let turn = 0; turn < turns; turn++) {
  const it = caseOf(turn, bytes, long ? bytes : bytes / 8);
  test.serial(`turn ${turn}: ${it.bytes / MEBIBYTE} MiB on ${it.stream} of ${it.verb}`, async (t) => {
    t.timeout(3_600_000);
    const told = await carry(scratch, POD, programs.pattern, `turn-${turn}`, it);
    const [, pauses = "0"] = new RegExp(`^whole: ${it.bytes} of ${it.bytes}, (\\d+) pauses$`).exec(told) ?? t.fail(told);
    // About 50 on either end, two of them long.
    t.true(Number(pauses) >= 20, told);
  });
}

/** Far more than any test waits for. */
const ENDLESS = 2 ** 40;
/** By then the stream flows, and every buffer of its way is full of it. */
const MIDSTREAM = 8 * MEBIBYTE;
const combined = STREAMS.flatMap((stream) => VERBS.map((verb) => ({ stream, verb, toHost: guestWrites({ stream }) })));

/** Starts a stream, and leaves the pod as it was. */
async function withEnds(it: EndsCase, use: (ends: Ends) => Promise<void>): Promise<void> {
  const ends = await Ends.start(scratch, POD, programs, it);
  try {
    await use(ends);
  } finally {
    ends.kill();
    if (it.verb === "create") await scratch.ok(["delete", "--force", it.id]);
  }
}

async function untilProcesses(expected: readonly string[]): Promise<string[]> {
  for (const end = performance.now() + hangLimitMs; ; await after(200)) {
    const now = await guestProcesses(scratch);
    if (now.join() === expected.join() || performance.now() > end) return now;
  }
}

const KILLED = ["host's end", "guest's end", "both ends"] as const;
/** What a shell calls a death by the signal. */
const SIGHUP = 129;
const SIGKILL = 137;
const SIGPIPE = 141;

/**
 * How runc's process ends whose stream's other end has gone: by the signal of its kernel, which number 1 of a pid namespace, a container's own process, does
 * not get unless it has a handler; then the program sees an error, or the end of its input, and exits with 1.
 */
function endOf(stream: StreamCase["stream"], verb: StreamCase["verb"]): number {
  if (verb === "create" || stream === "stdin") return 1;
  return stream.startsWith("terminal") ? SIGHUP : SIGPIPE;
}

function statusesOf(stream: StreamCase["stream"], verb: StreamCase["verb"], killed: (typeof KILLED)[number]): number[] {
  if (killed === "guest's end") return [SIGKILL];
  // Of two that are killed at once, the guest's may have seen the other's end first.
  return killed === "host's end" ? [endOf(stream, verb)] : [SIGKILL, endOf(stream, verb)];
}

/** The host's end when the guest's has gone: who reads has not had what was promised, who writes gets a pipe's signal or a terminal's EIO. */
function hostEndOf(stream: StreamCase["stream"]): number | string {
  return stream === "stdin" ? "SIGPIPE" : 1;
}

for (const { stream, verb, toHost } of combined) {
  for (const killed of KILLED) {
    test.serial(`${stream} of ${verb}, killed midway: ${killed}`, async (t) => {
      t.timeout(hangLimitMs * 3);
      const before = await guestProcesses(scratch);
      const id = `${stream} ${verb} ${killed}`.replaceAll(/[^a-z]/g, "-");
      await withEnds({ id, stream, verb, bytes: ENDLESS }, async (ends) => {
        await until(() => ends.hostTold.bytes >= MIDSTREAM || ends.shim.over, "the stream flows");
        const killGuest = killed === "host's end" ? async (): Promise<void> => {} : await guestKiller(scratch);
        if (killed !== "guest's end") ends.host.child.kill("SIGKILL");
        await killGuest();
        const [host, shim] = await Promise.all([ends.host.end(), ends.shim.end()]);
        const { hostTold, guestTold } = ends;
        const state = JSON.stringify({ host, shim, hostTold, guestTold });
        t.log(state);
        t.is(host, killed === "guest's end" ? hostEndOf(stream) : "SIGKILL");
        t.true(statusesOf(stream, verb, killed).includes(Number(shim)), state);
        const [writer, checker] = toHost ? [guestTold, hostTold] : [hostTold, guestTold];
        // Killed, it has said what was right so far; else, that the end came too early. Anything else is a difference.
        t.true(["so far", "short"].includes(checker.verdict) && checker.bytes > 0, state);
        // A terminal that hangs up drops what it holds (tty_ldisc_hangup), a pipe does not.
        if (killed === (toHost ? "guest's end" : "host's end") && stream !== "terminal in") {
          t.is(checker.verdict, "short");
          t.true(checker.bytes >= writer.bytes, `what was written has not all arrived: ${state}`);
        }
        t.deepEqual(await untilProcesses(before), before);
      });
    });
  }
}

test.serial("a process that kills itself: all it wrote arrives, then the end and its status", async (t) => {
  t.timeout(hangLimitMs * 2);
  const script = `echo begun; ${PATTERN} write 1 1000000; kill -9 $$`;
  const outcome = await shell(scratch, `tskata exec ${POD} sh -c '${script}' | wc -c; echo "\${PIPESTATUS[0]}"`);
  t.deepEqual(outcome.stdout.trim().split("\n"), ["1000006", "137"], describe(outcome));
});

/** Fits into the buffers of the way, but not into the pipe or terminal that the host's end reads. */
const UNREAD = 256 * 1024;
for (const { stream, verb, toHost } of combined) {
  if (!toHost) continue;
  test.serial(`${stream} of ${verb}: the exit is told when everything is read, not when the process has ended`, async (t) => {
    t.timeout(hangLimitMs * 3);
    const before = await guestProcesses(scratch);
    const id = `${stream} ${verb} held`.replaceAll(" ", "-");
    await withEnds({ id, stream, verb, bytes: UNREAD, held: true }, async (ends) => {
      await until(() => existsSync(ends.guestFile) || ends.shim.over, "the process runs");
      t.deepEqual(await untilProcesses(before), before);
      await after(2000);
      t.false(ends.shim.over);
      ends.host.child.kill("SIGCONT");
      t.deepEqual(await Promise.all([ends.host.end(), ends.shim.end()]), [0, 0]);
      t.deepEqual(ends.hostTold, { bytes: UNREAD, verdict: "whole" });
    });
  });
}

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

test.serial("larger records of several writers are torn no worse than by a pipe", async (t) => {
  t.timeout(hangLimitMs * 2);
  const [writers, records] = [8, 64];
  buildFixture("records", join(scratch.folder, "bundle-0/rootfs/bin/records"));
  const check = `${programs.records} check ${writers} ${records}`;
  const whole = new RegExp(`^whole: ${writers * records} records, torn at \\d+ places\\n$`);
  for (const [way, write] of [
    ["a host's pipe", programs.records],
    ["exec", `tskata exec ${POD} /bin/records`],
  ]) {
    const outcome = await shell(scratch, `set -o pipefail; ${write} write ${writers} ${records} </dev/null | ${check}`);
    t.log(`${way}: ${outcome.stdout.trim()}`);
    t.is(outcome.code, 0, describe(outcome));
    t.regex(outcome.stdout, whole, describe(outcome));
  }
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
