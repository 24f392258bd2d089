/**
 * The same pod on both drivers: what its caller sees is the same but for the driver's name. Where /dev/kvm works (the testbed): elsewhere
 * only one of the two runs.
 */
import test from "ava";
import { describe, driver, hangLimitMs, Scratch } from "../helpers/tskata.ts";

const DRIVERS = ["kvm", "qemu"] as const;
type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const haveBoth = driver() === "kvm";
/** None where nothing is run: ava runs no hooks then. */
const scratches = new Map(haveBoth ? DRIVERS.map((name) => [name, new Scratch(`same-${name}`)]) : []);
test.after.always("clean up", async () => {
  for (const scratch of scratches.values()) await scratch.cleanUp();
});

const both = haveBoth ? test.serial : test.serial.skip;

interface Seen {
  readonly state: Json;
  readonly stats: Json;
  readonly processes: number;
  readonly features: string;
  readonly errors: string[];
  readonly end: string;
}

async function look(name: (typeof DRIVERS)[number]): Promise<Seen> {
  const scratch = scratches.get(name);
  if (scratch === undefined) throw new Error("no scratch");
  const env = { TSKATA_CONFIG: scratch.config("driver", "", name) };
  await scratch.running("c", () => {}, env);
  const state = JSON.parse(await scratch.ok(["state", "c"], { env })) as Json;
  const stats = JSON.parse(await scratch.ok(["events", "--stats", "c"], { env })) as Json;
  const processes = (JSON.parse(await scratch.ok(["ps", "--format", "json", "c"], { env })) as Json[]).length;
  const features = await scratch.ok(["features"], { env });
  const errors: string[] = [];
  for (const args of [
    ["exec", "c", "no-such-program"],
    ["exec", "--user", "7:x", "c", "true"],
    ["start", "c"],
    ["delete", "c"],
    ["exec", "c", "/tmp"],
  ]) {
    const outcome = await scratch.tskata(args, { env });
    errors.push(`${outcome.code} ${message(outcome.stderr)}`);
  }
  const killed = await scratch.tskata(["exec", "c", "sh", "-c", "kill -9 $$"], { env });
  await scratch.ok(["delete", "--force", "c"], { env });

  const panics = scratch.config("panics", '[guest]\nkernel_parameters = ["init=/no/such"]\n', name);
  const bundle = await scratch.bundle();
  const refused = await scratch.tskata(["run", "--bundle", bundle, "panics"], { env: { TSKATA_CONFIG: panics } });
  return { state, stats, processes, features, errors: [...errors, describe(killed)], end: `${refused.code} ${message(refused.stderr)}` };
}

/** What is told, without times and what only one driver has: its name, its log, where a vCPU was, and the console, whose lines have the devices. */
function message(stderr: string): string {
  const [, first = stderr, rest = ""] = /msg="([^\n]*?)(?:\\n|"\n|$)(.*)/s.exec(stderr) ?? [];
  const told = [first, ...rest.split("\n").filter((line) => /^ {2}(likely cause|what to do|more|virtual machine): /.test(line))].join("\n");
  return told
    .replace(/ after \d+\.\d s/, "")
    .replace(/driver (kvm|qemu with \w+)/, "driver …")
    .trim();
}

/** Names and types of all there is: numbers differ from machine to machine. */
function shape(value: Json): Json {
  if (Array.isArray(value)) return value.map(shape);
  if (value === null || typeof value !== "object") return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}

both("state, stats, features, errors and ends are the same", async (t) => {
  t.timeout(hangLimitMs * 3);
  const [ours, theirs] = [await look("kvm"), await look("qemu")];
  t.deepEqual(shape(ours.state), shape(theirs.state));
  t.deepEqual((ours.state as { status: string }).status, (theirs.state as { status: string }).status);
  t.deepEqual(shape(ours.stats), shape(theirs.stats));
  t.is(ours.processes, theirs.processes);
  t.is(ours.features, theirs.features);
  t.deepEqual(ours.errors, theirs.errors);
  t.is(ours.end, theirs.end);
  t.regex(ours.end, /^1 .*guest kernel panicked/);
});
