/**
 * stdio of one process: pipes or a pty on its side, streams to the host on the other, relays between.
 *
 *   stdin   stream ─relay─► pipe ─► process          with a terminal: stream ─► master, master ─► stream
 *   stdout  process ─► pipe ─relay─► stream
 */
import { readFileSync, writeFileSync } from "node:fs";
import { native, type Relay } from "../../src/native.ts";
import type { Stdio as StdioIds } from "../../src/protocols/generated/agent.ts";
import type { Streams } from "./streams.ts";

/** So many times the kernel's 64 KiB: a relay that moves more at once is woken less often. */
const PIPE_FACTOR = 4;
const PIPE_BYTES = PIPE_FACTOR * 65_536;
const PIPE_PAGES = "/proc/sys/fs/pipe-user-pages-soft";

/** On a guest's only CPU the process and its relay would else take turns at every page. */
const PATIENT = true;

/** The kernel counts a user's pipes by their size, and beyond this gives the unprivileged ones of its processes two pages each: as many pipes as ever. */
export function makeRoomForPipes(): void {
  writeFileSync(PIPE_PAGES, String(Number(readFileSync(PIPE_PAGES, "utf8")) * PIPE_FACTOR));
}

/** Bytes that the process wrote, as read from its pipes. */
export interface OutputCounts {
  readonly stdout: bigint;
  readonly stderr: bigint;
}

interface Claimed {
  readonly stdin: number | undefined;
  readonly stdout: number | undefined;
  readonly stderr: number | undefined;
}

/** Descriptors before and while a process is launched; `connect` or `close` ends this. */
export class StdioPreparation {
  /** What the launcher gets as 0, 1, 2; -1 is /dev/null. */
  readonly child: [number, number, number] = [-1, -1, -1];
  readonly #streams: Claimed;
  readonly #ours: { stdin?: number; stdout?: number; stderr?: number } = {};

  private constructor(streams: Claimed, terminal: boolean) {
    this.#streams = streams;
    if (terminal) return;
    if (streams.stdin !== undefined) [this.child[0], this.#ours.stdin] = native().pipe(PIPE_BYTES);
    if (streams.stdout !== undefined) [this.#ours.stdout, this.child[1]] = native().pipe(PIPE_BYTES);
    if (streams.stderr !== undefined) [this.#ours.stderr, this.child[2]] = native().pipe(PIPE_BYTES);
  }

  static async begin(streams: Streams, ids: StdioIds | undefined, terminal: boolean): Promise<StdioPreparation> {
    const claimed: { stdin?: number; stdout?: number; stderr?: number } = {};
    try {
      for (const name of ["stdin", "stdout", "stderr"] as const) {
        const id = ids?.[name] ?? 0n;
        if (id !== 0n) claimed[name] = await streams.claim(id);
      }
      return new StdioPreparation({ stdin: claimed.stdin, stdout: claimed.stdout, stderr: claimed.stderr }, terminal);
    } catch (error) {
      for (const fd of Object.values(claimed)) native().closeFd(fd);
      throw error;
    }
  }

  /** The process has its ends: starts the relays. `terminal` is the pty's master, taken over. */
  connect(terminal: number | null): ProcessStdio {
    this.#closeChild();
    const { stdin, stdout, stderr } = this.#streams;
    if (terminal !== null) return connectTerminal(terminal, stdin, stdout);
    return new ProcessStdio(
      stdin === undefined ? undefined : native().relay(stdin, this.#ours.stdin ?? -1, PATIENT),
      stdout === undefined ? undefined : native().relay(this.#ours.stdout ?? -1, stdout, PATIENT),
      stderr === undefined ? undefined : native().relay(this.#ours.stderr ?? -1, stderr, PATIENT),
      undefined,
    );
  }

  /** The launch has failed. */
  close(): void {
    this.#closeChild();
    for (const fd of [...Object.values(this.#ours), ...Object.values(this.#streams)]) if (fd !== undefined) native().closeFd(fd);
  }

  #closeChild(): void {
    for (const [index, fd] of this.child.entries()) {
      if (fd >= 0) native().closeFd(fd);
      this.child[index] = -1;
    }
  }
}

function connectTerminal(master: number, stdin: number | undefined, stdout: number | undefined): ProcessStdio {
  const input = stdin === undefined ? undefined : native().relay(stdin, native().dupFd(master), PATIENT);
  const output = stdout === undefined ? undefined : native().relay(native().dupFd(master), stdout, PATIENT);
  const stdio = new ProcessStdio(input, output, undefined, master);
  void output?.ended.then((error) => {
    if (error !== null) stdio.hangUp();
  });
  return stdio;
}

export class ProcessStdio {
  readonly #stdin: Relay | undefined;
  readonly #stdout: Relay | undefined;
  readonly #stderr: Relay | undefined;
  #terminal: number | undefined;

  constructor(stdin: Relay | undefined, stdout: Relay | undefined, stderr: Relay | undefined, terminal: number | undefined) {
    this.#stdin = stdin;
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#terminal = terminal;
  }

  /** The process has ended: everything it wrote has been read when this resolves. */
  async drain(): Promise<OutputCounts> {
    this.closeStdin();
    const [stdout, stderr] = await Promise.all([this.#stdout?.drained() ?? 0n, this.#stderr?.drained() ?? 0n]);
    this.#closeTerminal();
    return { stdout, stderr };
  }

  closeStdin(): void {
    this.#stdin?.stop();
  }

  resize(rows: number, columns: number): boolean {
    if (this.#terminal === undefined) return false;
    native().setWindowSize(this.#terminal, rows, columns);
    return true;
  }

  /** Nobody has the caller's end of the terminal any more: this end's last master goes, too, and the kernel tells its processes. */
  hangUp(): void {
    this.closeStdin();
    this.#closeTerminal();
  }

  /** Nobody is to be waited for any more. */
  close(): void {
    for (const relay of [this.#stdin, this.#stdout, this.#stderr]) relay?.stop();
    this.#closeTerminal();
  }

  #closeTerminal(): void {
    if (this.#terminal !== undefined) native().closeFd(this.#terminal);
    this.#terminal = undefined;
  }
}
