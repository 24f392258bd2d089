/** native/linux/reaper.cpp: PID 1 of a namespace of its own hears of every orphan's end, once. */
import { join } from "node:path";
import test from "ava";
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
