/**
 * Spans: named stretches of a command's work on a pod, one JSON line each in <pod>/spans.jsonl (and its older parts), appended by every process of the pod.
 *
 * Times are host CLOCK_MONOTONIC nanoseconds (`process.hrtime.bigint()`), which all processes of one host share; guest
 * spans are mapped onto it by the sandbox. A line is far below PIPE_BUF and is appended with O_APPEND in one write, so
 * writers need no lock.
 */
import { closeSync, existsSync, fstatSync, renameSync, writeSync } from "node:fs";
import type { Phase } from "../base/failures.ts";
import { appendPodFile } from "../base/pod-file.ts";
import { type Edge, type Fault, reachFault, selectedFault } from "./fault.ts";

export type SpanProcess = "cli" | "sandbox" | "guest";

export interface Span {
  readonly name: string;
  readonly process: SpanProcess;
  readonly startNs: bigint;
  readonly endNs: bigint;
}

/** The file grows with every exec: at this size the next one is begun. */
const MOST_BYTES = 256 * 1024;

/** The parts that are kept, oldest first: what the pod began with, the part before the present one, the present one. */
export function spanFiles(file: string): [first: string, before: string, present: string] {
  return [`${file}.first`, `${file}.before`, file];
}

/** Collects the spans of one process, writes them where it is told to, and never fails its caller. A span's begin and end are fault points. */
export class SpanRecorder {
  readonly #process: SpanProcess;
  #fault: Fault | undefined;
  #file: string | undefined;
  #waiting: Span[] = [];

  constructor(process: SpanProcess) {
    this.#process = process;
    this.#fault = selectedFault(process);
  }

  /** From now on spans go to this file; those recorded before are written now. */
  writeTo(file: string): void {
    this.#file = file;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#append(waiting);
  }

  /** Begins a span; the function it gives ends it, once. */
  begin(name: string, startNs: bigint = now()): () => void {
    let open = true;
    if (this.#fault !== undefined) this.#reach(name, "begin");
    return () => {
      if (!open) return;
      open = false;
      if (this.#fault !== undefined) this.#reach(name, "end");
      this.add({ name, process: this.#process, startNs, endNs: now() });
    };
  }

  /** A point is there once. */
  #reach(name: string, edge: Edge): void {
    const fault = this.#fault;
    if (fault === undefined || fault.span !== name || fault.edge !== edge) return;
    this.#fault = undefined;
    reachFault(fault);
  }

  /** Measures what `work` takes, also when it fails: then its error knows that it came out of this phase. */
  async measure<T>(name: string, work: () => T | Promise<T>): Promise<T> {
    const end = this.begin(name);
    try {
      return await inPhase(name, work);
    } finally {
      end();
    }
  }

  add(...spans: Span[]): void {
    if (this.#file === undefined) this.#waiting.push(...spans);
    else this.#append(spans);
  }

  #append(spans: readonly Span[]): void {
    if (this.#file === undefined || spans.length === 0) return;
    try {
      const fd = appendPodFile(this.#file);
      try {
        writeSync(fd, spans.map(formatSpan).join(""));
        if (fstatSync(fd).size >= MOST_BYTES) turnOver(this.#file);
      } finally {
        closeSync(fd);
      }
    } catch {
      // A start must not fail because its measurement could not be kept: a full or removed pod folder.
    }
  }
}

/** Two writers that do so at once take a part away from `before`, nothing else. */
function turnOver(file: string): void {
  const [first, before] = spanFiles(file);
  renameSync(file, existsSync(first) ? before : first);
}

/** The innermost phase each error came out of. */
const phases = new WeakMap<object, Phase>();

/** `work` as a phase that no timeline shows. */
export async function inPhase<T>(name: string, work: () => T | Promise<T>): Promise<T> {
  const start = now();
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error && failedPhase(error) === undefined) phases.set(error, { name, seconds: Number(now() - start) / 1e9 });
    throw error;
  }
}

/** Where it, or what caused it, came from. */
export function failedPhase(error: unknown): Phase | undefined {
  for (let current = error, depth = 0; current instanceof Error && depth < 16; current = current.cause, depth++) {
    const phase = phases.get(current);
    if (phase !== undefined) return phase;
  }
  return undefined;
}

export function now(): bigint {
  return process.hrtime.bigint();
}

export function formatSpan(span: Span): string {
  const { name, process, startNs, endNs } = span;
  return `{"name":${JSON.stringify(name)},"process":"${process}","startNs":${startNs},"endNs":${endNs}}\n`;
}
