/** native/linux/reaper.cpp: PID 1 of a namespace of its own hears of every orphan's end, once; agent/init/reaper.ts: whose end it was. */
import { join } from "node:path";
import test from "ava";
import { type ExitOf, Reaper } from "../../agent/init/reaper.ts";
import { repository, runProgram } from "./helpers.ts";

/**
 * Runs as PID 1. Its own children are node's to wait for, so all it counts are orphans: a shell makes them, says their pids and ends.
 * The first shell's end early, late and by a signal; the second makes many at once.
 */
const SCRIPT = `
const { spawn } = await import("node:child_process");
const { text } = await import("node:stream/consumers");
const { native } = await import(${JSON.stringify(join(repository, "src/native.ts"))});
const ends = [];
native().startReaper((pid, status) => ends.push([pid, status]));
const orphans = async (line) => (await text(spawn("sh", ["-c", line], { stdio: ["ignore", "pipe", "inherit"] }).stdout)).trim().split("\\n").map(Number);
const start = (body) => "(sleep 0." + body + ") >/dev/null & echo $!;";
await new Promise((wake) => setTimeout(wake, 700)); // it has had no child for a while
const own = await orphans(start("1; exit 7") + start("4; exit 5") + start("2; exec sh -c 'kill -9 $$'"));
own.push(...(await orphans(Array.from({ length: 40 }, (_, i) => start("3; exit " + i)).join(""))));
const missing = () => own.filter((pid) => !ends.some(([ended]) => ended === pid));
for (let turn = 0; turn < 200 && missing().length > 0; turn++) await new Promise((wake) => setTimeout(wake, 50));
console.log(JSON.stringify({ own, ends }));
process.exit(missing().length === 0 ? 0 : 1);
`;

interface Told {
  own: number[];
  ends: [pid: number, status: number][];
}

test("the end of every orphan is told once, with the status as waitpid gives it", async (t) => {
  const { code, stdout, stderr } = await runProgram("unshare", [
    ...["--pid", "--fork", "--kill-child", "--mount-proc"],
    ...[process.execPath, "--input-type=module", "-e", SCRIPT],
  ]);
  t.is(code, 0, stdout + stderr);
  const { own, ends } = JSON.parse(stdout) as Told;
  const statuses = new Map(ends);
  t.is(statuses.size, ends.length, "none twice");
  const [early, late, killed, ...many] = own.map((pid) => statuses.get(pid));
  t.deepEqual([early, late, killed], [7 << 8, 5 << 8, 9]);
  t.deepEqual(
    many,
    many.map((_, index) => index << 8),
  );
  t.is(many.length, 40);
});

/** A reaper whose exits the test tells. */
function told(): { reaper: Reaper; exit: (pid: number, status: number) => void } {
  let exit: (pid: number, status: number) => void = () => {};
  const reaper = new Reaper((onExit) => (exit = onExit));
  reaper.start();
  return { reaper, exit: (pid, status) => exit(pid, status) };
}

/** A launch that is under way until `end`. */
function begin(reaper: Reaper): { exitOf: ExitOf; end: () => Promise<void> } {
  const end = Promise.withResolvers<void>();
  let given: ExitOf | undefined;
  const ended = reaper.launching(async (exitOf) => {
    given = exitOf;
    await end.promise;
  });
  const exitOf: ExitOf = async (pid) => await (given as ExitOf)(pid);
  return {
    exitOf,
    end: async () => {
      end.resolve();
      await ended;
    },
  };
}

test("a process that ends before its launch returns is found, and one that ends after it", async (t) => {
  const { reaper, exit } = told();
  const early = begin(reaper);
  exit(100, 1);
  t.is(await early.exitOf(100), 1);
  const late = early.exitOf(101);
  await early.end();
  exit(101, 2);
  t.is(await late, 2);
});

test("launches that never pause keep no exits but those since the oldest of them", async (t) => {
  const { reaper, exit } = told();
  let oldest = begin(reaper);
  for (let turn = 0; turn < 1000; turn++) {
    const next = begin(reaper);
    exit(1000 + turn, 0);
    await oldest.end();
    oldest = next;
    t.true(reaper.kept <= 1);
  }
  await oldest.end();
  t.is(reaper.kept, 0);
});

test("a pid that the kernel gives again is not taken for the process that had it before", async (t) => {
  const { reaper, exit } = told();
  const long = begin(reaper);
  exit(100, 9); // a launcher's, or an orphan's
  const short = begin(reaper);
  const end = short.exitOf(100);
  let ended = false;
  void end.then(() => (ended = true));
  await short.end();
  t.false(ended);
  exit(100, 3);
  t.is(await end, 3);
  await long.end();
});
