/**
 * Bytes through one stream of a container's process, checked at the other end by the program of fixtures/pattern.c: its streams come from
 * a seed, so neither side keeps them, and no process but the two ends touches them.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { buildFixture } from "./fixtures.ts";
import { joinPod } from "./pod.ts";
import { binary, describe, type Outcome, outcomeOf, type RunOptions, type Scratch, type Spec } from "./tskata.ts";

export const STREAMS = ["stdout", "stderr", "stdin", "terminal out", "terminal in"] as const;
export const VERBS = ["create", "exec"] as const;

export interface StreamCase {
  readonly stream: (typeof STREAMS)[number];
  readonly verb: (typeof VERBS)[number];
  readonly seed: number;
  readonly bytes: number;
  /** Largest piece that the guest's side, and the host's, writes or reads at once. */
  readonly guestPiece: number;
  readonly hostPiece: number;
  /** About so often it waits up to 20 ms, every twentieth time 0.5 to 1 s. */
  readonly guestPauses: number;
  readonly hostPauses: number;
}

/** Where the program is in a container whose root filesystem has it. */
export const PATTERN = "/bin/pattern";

/** Runs a line of bash on the host, in which `tskata` is the command with the scratch's --root: no process of ours is in its pipes. */
export async function shell(scratch: Scratch, script: string, options: RunOptions = {}): Promise<Outcome> {
  const child = spawn("bash", ["-c", withCommand(scratch, script)], { env: scratch.environment(), stdio: ["pipe", "pipe", "pipe"] });
  return await outcomeOf(child, options);
}

/** A line of bash in which `tskata` is the command with the scratch's --root. */
export function withCommand(scratch: Scratch, script: string): string {
  return `tskata() { ${JSON.stringify(binary)} --root ${JSON.stringify(scratch.root)} "$@"; }; export -f tskata; ${script}`;
}

/** A machine's numbers from a seed (mulberry32), so that a failing turn can be repeated. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) % below;
  };
}

/** The case of a turn: streams and verbs in rotation, everything else by chance. Terminals, at a tenth of a pipe's speed, have their own size. */
export function caseOf(turn: number, pipeBytes: number, terminalBytes: number): StreamCase {
  const random = randomOf(turn);
  const piece = (): number => 4096 + random(2 ** (12 + random(7)));
  const stream = STREAMS[turn % STREAMS.length] ?? "stdout";
  return {
    stream,
    verb: VERBS[Math.floor(turn / STREAMS.length) % VERBS.length] ?? "exec",
    seed: random(2 ** 30),
    bytes: stream.startsWith("terminal") ? terminalBytes : pipeBytes,
    guestPiece: piece(),
    hostPiece: piece(),
    guestPauses: 40 + random(20),
    hostPauses: 40 + random(20),
  };
}

/** Carries one case through `pod`'s containers; the line that the checking side prints ("whole: …", and how often it has paused). */
export async function carry(scratch: Scratch, pod: string, pattern: string, id: string, it: StreamCase): Promise<string> {
  const side = it.stream.startsWith("terminal") ? terminal(scratch, pattern, id, it) : pipe(pattern, it);
  const runs = it.verb === "exec" ? execOf(pod, side.guest, side.flags) : await createOf(scratch, pod, id, side.guest, side.flags);
  const outcome = await shell(scratch, `set -o pipefail; ${side.script(runs)}`, { timeoutMs: 3_600_000 });
  if (it.verb === "create") {
    await scratch.until(id, "stopped");
    await scratch.ok(["delete", id]);
  }
  const told = it.verb === "create" && it.stream === "stdin" ? readFileSync(outputFile(scratch, id), "utf8") : outcome.stdout;
  if (outcome.code !== 0) throw new Error(`${JSON.stringify(it)}: ${describe(outcome)}\n${told}\n${scratch.logs()}`);
  return told.trim();
}

/** The container's process. */
export interface GuestProgram {
  readonly args: string[];
  readonly env: string[];
}

interface Side {
  readonly guest: GuestProgram;
  readonly flags: string[];
  /** The shell line around what runs it. */
  readonly script: (runs: (stdio: string) => string) => string;
}

function pipe(pattern: string, it: StreamCase): Side {
  const env = [`PIECE=${it.guestPiece}`, `PAUSES=${it.guestPauses}`];
  const host = (what: string): string => `PIECE=${it.hostPiece} PAUSES=${it.hostPauses} ${JSON.stringify(pattern)} ${what} ${it.seed} ${it.bytes}`;
  const numbers = [String(it.seed), String(it.bytes)];
  switch (it.stream) {
    case "stdin":
      return { guest: { args: [PATTERN, "check", ...numbers], env }, flags: [], script: (runs) => `${host("write")} | ${runs("")}` };
    case "stderr":
      return {
        guest: { args: [PATTERN, "write", ...numbers, "2"], env },
        flags: [],
        script: (runs) => `${runs("</dev/null 2>&1 >/dev/null")} | ${host("check")}`,
      };
    default:
      return { guest: { args: [PATTERN, "write", ...numbers], env }, flags: [], script: (runs) => `${runs("</dev/null")} | ${host("check")}` };
  }
}

/** Over a console socket, as engines ask for terminals: the host's side has the master itself. */
function terminal(scratch: Scratch, pattern: string, id: string, it: StreamCase): Side {
  const socket = join(scratch.folder, `${id}.sock`);
  const [guest, host, line] = it.stream === "terminal out" ? ["write", "check", ""] : ["check", "write", "READY=1"];
  const numbers = [String(it.seed), String(it.bytes)];
  const env = [`PIECE=${it.guestPiece}`, `PAUSES=${it.guestPauses}`, "RAW=1"];
  const waits = `while [ ! -S ${JSON.stringify(socket)} ]; do sleep 0.1; done`;
  const ours = `${line} PIECE=${it.hostPiece} PAUSES=${it.hostPauses} ${JSON.stringify(pattern)} ${host} ${numbers.join(" ")} console:${JSON.stringify(socket)}`;
  return {
    guest: { args: [PATTERN, guest, ...numbers], env },
    flags: ["--console-socket", socket],
    script: (runs) => `${ours} & ${waits}; ${runs("</dev/null >/dev/null")} || kill $!; wait $!`,
  };
}

/** The line that runs the process in the pod's first container; with the flags of a terminal it does not wait for it. */
export function execOf(pod: string, guest: GuestProgram, flags: string[]): (stdio: string) => string {
  const all = [...(flags.length > 0 ? ["--tty", "--detach", ...flags] : []), ...guest.env.flatMap((pair) => ["--env", pair]), pod, ...guest.args];
  return (stdio) => `tskata exec ${words(all)} ${stdio}`;
}

function outputFile(scratch: Scratch, id: string): string {
  return join(scratch.folder, `${id}.told`);
}

/** A container of its own in the pod, whose init is the process; its bundle is `bundleOf` it. */
export async function createOf(scratch: Scratch, pod: string, id: string, guest: GuestProgram, flags: string[]): Promise<(stdio: string) => string> {
  const joined = await joinPod(scratch, pod);
  const bundle = await scratch.bundle((spec: Spec) => {
    joined(spec);
    spec.process.args = guest.args;
    spec.process.env.push(...guest.env);
    spec.process.terminal = flags.length > 0;
  }, bundleOf(id));
  installPattern(bundle);
  const stdio = (given: string): string => (given === "" ? `>${JSON.stringify(outputFile(scratch, id))}` : given);
  return (given) => `{ tskata create --bundle ${words([bundle, ...flags])} ${id} && tskata start ${id}; } ${stdio(given)}`;
}

/** In the scratch's folder. */
export function bundleOf(id: string): string {
  return `bundle-of-${id}`;
}

/** Into the root filesystem of a bundle. */
export function installPattern(bundle: string): void {
  const file = join(bundle, "rootfs", PATTERN);
  if (!existsSync(file)) buildFixture("pattern", file);
}

function words(all: readonly string[]): string {
  return all.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
}
