/**
 * The measurements of streams, for bench.ts: how fast each of a process's streams is beside what it is without us, what `exec true` costs, and
 * the long run of test/helpers/streams.ts. Everything over a pod of its own, with the driver that the configuration chooses.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { buildFixture } from "../../test/helpers/fixtures.ts";
import { joinPod, startPod } from "../../test/helpers/pod.ts";
import { carry, caseOf, installPattern, STREAMS, shell, VERBS } from "../../test/helpers/streams.ts";
import { binary, describe, Scratch } from "../../test/helpers/tskata.ts";
import { median } from "../lib/median.ts";
import { pinnedNode } from "../lib/steps.ts";
import { must, print } from "./must.ts";

const MEBIBYTE = 2 ** 20;
const POD = "c";
const RUNC = "bench-streams";
const LIMIT_MS = 3_600_000;

/** The pod that is measured and, from its first container's bundle, a container of runc's. */
interface Pair {
  readonly scratch: Scratch;
  readonly meter: string;
  /** runc with its root. */
  readonly runc: string;
}

async function withPair(work: (pair: Pair) => Promise<void>): Promise<void> {
  const scratch = new Scratch("bench-streams");
  const meter = join(scratch.folder, "meter");
  const runc = `runc --root ${scratch.folder}/runc`;
  try {
    must("cc", ["-O2", "-o", meter, join(import.meta.dirname, "meter.c"), "-lutil"]);
    await startPod(scratch, POD);
    must("sh", ["-c", `exec ${runc} run --detach --bundle ${scratch.folder}/bundle-0 ${RUNC} </dev/null >/dev/null 2>${scratch.folder}/runc.log`]);
    await work({ scratch, meter, runc });
  } finally {
    spawnSync("sh", ["-c", `${runc} delete --force ${RUNC}`]);
    await scratch.cleanUp();
  }
}

/** Values by name, in the order of their first. */
class Table {
  readonly #rows = new Map<string, number[]>();

  note(name: string, value: number): void {
    this.#rows.set(name, [...(this.#rows.get(name) ?? []), value]);
    process.stderr.write(`${name}: ${value}\n`);
  }

  median(name: string): number {
    return median(this.#rows.get(name) ?? []);
  }

  tell(unit: string): void {
    for (const [name, values] of this.#rows) {
      const [least, most] = [Math.min(...values), Math.max(...values)];
      const range = `${least.toFixed(1)} to ${most.toFixed(1)}, ${values.length} turns`;
      print(`${name.padEnd(44)} ${median(values).toFixed(1).padStart(9)} ${unit} (${range})`);
    }
  }
}

// -- throughput ---------------------------------------------------------------------------------------------------------------

/** A process's line in a shell, and what stands around the command that runs it; `bytes` go through. */
interface Stream {
  readonly name: string;
  readonly inside: (bytes: number) => string;
  readonly around: (command: string, meter: string, bytes: number) => string;
}

const ZEROES = (bytes: number): string => `dd if=/dev/zero bs=64k count=${bytes / 65536}`;
const PIPES: readonly Stream[] = [
  { name: "stdout", inside: (bytes) => `${ZEROES(bytes)} 2>/dev/null`, around: (run, meter, bytes) => `${run} </dev/null | ${meter} read ${bytes}` },
  {
    name: "stderr",
    inside: (bytes) => `${ZEROES(bytes)} 3>&2 2>/dev/null >&3`,
    around: (run, meter, bytes) => `{ ${run} </dev/null 2>&1 >/dev/null; } | ${meter} read ${bytes}`,
  },
  { name: "stdin", inside: () => "dd of=/dev/null bs=64k 2>/dev/null", around: (run, meter, bytes) => `${meter} write ${bytes} | ${run}` },
];
/** The one who asks has the master. */
const TERMINALS = [
  { name: "terminal out", way: "read", inside: (bytes: number) => `stty raw -echo; ${ZEROES(bytes)} 2>/dev/null; read line` },
  { name: "terminal in", way: "write", inside: (bytes: number) => `stty raw -echo; echo ready; head -c ${bytes} >/dev/null; echo done` },
] as const;

/** Enough for a second or two each; what is fast has more. */
const SIZES = { host: 2048, guest: 256, terminalHost: 128, terminalGuest: 32 };

async function rate({ scratch }: Pair, script: string): Promise<number> {
  const outcome = await shell(scratch, script, { timeoutMs: LIMIT_MS });
  const value = Number(outcome.stderr.trim().split("\n").at(-1));
  if (outcome.code !== 0 || !(value > 0)) throw new Error(`${script}: ${describe(outcome)}\n${scratch.logs()}`);
  return value;
}

async function pipeRates(pair: Pair, stream: Stream, table: Table): Promise<void> {
  const { meter, runc } = pair;
  const host = SIZES.host * MEBIBYTE;
  const guest = SIZES.guest * MEBIBYTE;
  const line = (command: string, bytes: number): string => `${command} '${stream.inside(bytes)}'`;
  table.note(`${stream.name}: pipe`, await rate(pair, stream.around(line("busybox sh -c", host), meter, host)));
  table.note(`${stream.name}: runc exec`, await rate(pair, stream.around(line(`${runc} exec ${RUNC} sh -c`, host), meter, host)));
  table.note(`${stream.name}: tskata exec`, await rate(pair, stream.around(line(`tskata exec ${POD} sh -c`, guest), meter, guest)));
}

/** The init of a container has the same way as what is exec'ed: one stream shows it. */
async function createRate(pair: Pair, table: Table, turn: number): Promise<void> {
  const { scratch, meter } = pair;
  const [stream] = PIPES;
  if (stream === undefined) return;
  const bytes = SIZES.guest * MEBIBYTE;
  const id = `init-${turn}`;
  const joined = await joinPod(scratch, POD);
  const bundle = await scratch.bundle((spec) => {
    joined(spec);
    spec.process.args = ["sh", "-c", stream.inside(bytes)];
  });
  const script = stream.around(`{ tskata create --bundle ${bundle} ${id} && tskata start ${id}; }`, meter, bytes);
  table.note(`${stream.name}: tskata create`, await rate(pair, script));
  await scratch.until(id, "stopped");
  await scratch.ok(["delete", id]);
}

async function terminalRates(pair: Pair, { name, way, inside }: (typeof TERMINALS)[number], table: Table): Promise<void> {
  const { scratch, meter, runc } = pair;
  const [host, guest] = [SIZES.terminalHost * MEBIBYTE, SIZES.terminalGuest * MEBIBYTE];
  const socket = join(scratch.folder, "console.sock");
  const overSocket = (command: string, bytes: number): string =>
    [
      `rm -f ${socket}; ${meter} ${way} ${bytes} console:${socket} & while [ ! -S ${socket} ]; do sleep 0.05; done`,
      `${command} '${inside(bytes)}' </dev/null >/dev/null || kill $!; wait $!`,
    ].join("; ");
  const flags = `--tty --detach --console-socket ${socket}`;
  table.note(`${name}: terminal`, await rate(pair, `${meter} ${way} ${host} 'pty:${inside(host)}'`));
  table.note(`${name}: runc exec`, await rate(pair, overSocket(`${runc} exec ${flags} ${RUNC} sh -c`, host)));
  table.note(`${name}: tskata exec`, await rate(pair, overSocket(`tskata exec ${flags} ${POD} sh -c`, guest)));
}

/** MiB/s of every stream, one contestant after the other. */
export async function benchStreams(turns = 5): Promise<void> {
  await withPair(async (pair) => {
    const table = new Table();
    for (let turn = 0; turn < turns; turn++) {
      for (const stream of PIPES) await pipeRates(pair, stream, table);
      await createRate(pair, table, turn);
      for (const terminal of TERMINALS) await terminalRates(pair, terminal, table);
    }
    print("## streams: MiB/s beside nothing between and beside runc");
    table.tell("MiB/s");
  });
}

// -- latency ------------------------------------------------------------------------------------------------------------------

interface TimelineSpan {
  readonly name: string;
  readonly startNs: string;
  readonly endNs: string;
}

const EXEC_SPANS = [
  "start the proxy",
  "hand over the descriptors",
  "exec in the guest",
  "serve exec",
  "connect the streams of an exec",
  "launch the exec in the guest",
] as const;

/** What `exec true` costs from the caller's spawn to its wait, and where: the spans of that call, on the clock that its caller measures with. */
export async function benchExec(turns = 30): Promise<void> {
  await withPair(async ({ scratch, runc }) => {
    const table = new Table();
    const root = ["--root", scratch.root];
    const timed = (name: string, program: string, args: readonly string[]): { start: bigint; end: bigint } => {
      const start = process.hrtime.bigint();
      const { status, stderr } = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], env: scratch.environment() });
      const end = process.hrtime.bigint();
      if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
      table.note(name, milliseconds(start, end));
      return { start, end };
    };
    for (let turn = 0; turn < turns; turn++) {
      timed("node -e 0", pinnedNode, ["-e", "0"]);
      timed("runc exec true", "sh", ["-c", `exec ${runc} exec ${RUNC} true`]);
      const { start, end } = timed("tskata exec true", binary, [...root, "exec", POD, "true"]);
      noteSpans(table, scratch, start, end);
    }
    print("## exec true: milliseconds");
    table.tell("ms");
    const ratio = table.median("tskata exec true") / table.median("runc exec true");
    print(`tskata exec true takes ${ratio.toFixed(1)} times runc's`);
  });
}

function milliseconds(from: bigint, to: bigint): number {
  return Math.round(Number(to - from) / 1e4) / 100;
}

function noteSpans(table: Table, scratch: Scratch, start: bigint, end: bigint): void {
  const file = join(scratch.pod(POD).folder, "spans.jsonl");
  const { stdout } = spawnSync("tail", ["-n", "20", file], { encoding: "utf8" });
  const spans = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as TimelineSpan)
    .filter(({ startNs, endNs }) => BigInt(startNs) >= start && BigInt(endNs) <= end);
  const whole = spans.find(({ name }) => name === "exec");
  if (whole === undefined) throw new Error("the call has left no spans");
  table.note("  before the span: node, bundle, arguments", milliseconds(start, BigInt(whole.startNs)));
  for (const wanted of EXEC_SPANS) {
    const span = spans.find(({ name }) => name === wanted);
    if (span !== undefined) table.note(`  ${wanted}`, milliseconds(BigInt(span.startNs), BigInt(span.endNs)));
  }
  table.note("  after it: the process, its end, the proxy's", milliseconds(BigInt(whole.endNs), end));
}

// -- the long run ---------------------------------------------------------------------------------------------------------------

/** A gibibyte a turn through the streams and verbs in rotation, sizes and pauses by chance, exact to the byte. */
export async function soakStreams(turns = STREAMS.length * VERBS.length): Promise<void> {
  print(`## streams-soak: ${turns} turns of 1 GiB`);
  const scratch = new Scratch("bench-soak");
  let whole = 0;
  try {
    const pattern = join(scratch.folder, "pattern");
    buildFixture("pattern", pattern);
    await startPod(scratch, POD);
    installPattern(join(scratch.folder, "bundle-0"));
    for (let turn = 0; turn < turns; turn++) {
      const it = caseOf(turn, 1024 * MEBIBYTE, 1024 * MEBIBYTE);
      const start = performance.now();
      const told = await carry(scratch, POD, pattern, `turn-${turn}`, it).catch((error: unknown) => String(error));
      if (told.startsWith(`whole: ${it.bytes} of ${it.bytes},`)) whole++;
      print(`turn ${turn}: ${it.stream} of ${it.verb}: ${told} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
    }
  } finally {
    await scratch.cleanUp();
  }
  print(`${whole} of ${turns} whole`);
  if (whole !== turns) process.exitCode = 1;
}
