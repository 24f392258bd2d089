/** Processes of the testbed and beside it: they end with this one, and a server is there once it listens. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Readable } from "node:stream";
import { setTimeout as after } from "node:timers/promises";

const LISTEN_LIMIT_MS = 10_000;
const TAIL_BYTES = 4096;
const POLL_MS = 10;

/** Resolves once something listens on the socket; the server is in `children` from its start on. */
export async function startServer(command: readonly string[], socket: string, children: ChildProcess[]): Promise<void> {
  const server = dieWithUs(command, ["ignore", "ignore", "pipe"]);
  const said = tailOf(server.stderr);
  children.push(server);
  await until(
    () => listens(socket),
    LISTEN_LIMIT_MS,
    () => server.exitCode !== null,
  ).catch((error: Error) => {
    throw new Error(`nobody listens on ${socket}: ${error.message}: ${command.join(" ")}\n${said()}`);
  });
}

/** Killed by the kernel when this process dies, however it dies. */
export function dieWithUs(command: readonly string[], stdio: ("ignore" | "pipe")[]): ChildProcess {
  return spawn("setpriv", ["--pdeathsig", "KILL", "--", ...command], { stdio });
}

export function tailOf(from: Readable | null): () => string {
  let tail = Buffer.alloc(0);
  from?.on("data", (bytes: Buffer) => {
    tail = Buffer.concat([tail, bytes]).subarray(-TAIL_BYTES);
  });
  from?.on("error", () => {});
  return () => tail.toString("utf8").trim();
}

export async function exited(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((ended) => child.once("exit", ended));
}

/** The flag is __SO_ACCEPTCON: the file alone is there before anybody listens. */
function listens(socket: string): boolean {
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .some((line) => line.endsWith(` ${socket}`) && line.split(/\s+/)[3] === "00010000");
}

async function until(holds: () => boolean, limitMs: number, hopeless: () => boolean): Promise<void> {
  const end = performance.now() + limitMs;
  while (!holds()) {
    if (hopeless()) throw new Error("it has ended");
    if (performance.now() > end) throw new Error(`not within ${limitMs / 1000} s`);
    await after(POLL_MS);
  }
}
