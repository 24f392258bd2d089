/**
 * Spans: named stretches of a pod's start, one JSON line each in <pod>/spans.jsonl, appended by every process of the pod.
 *
 * Times are host CLOCK_MONOTONIC nanoseconds (`process.hrtime.bigint()`), which all processes of one host share; guest
 * spans are mapped onto it by the sandbox. A line is far below PIPE_BUF and is appended with O_APPEND in one write, so
 * writers need no lock.
 */
import { closeSync, writeSync } from "node:fs";
import type { Phase } from "../base/failures.ts";
import { appendPodFile } from "../base/pod-file.ts";

export type SpanProcess = "cli" | "sandbox" | "guest";

export interface Span {
  readonly name: string;
  readonly process: SpanProcess;
  readonly startNs: bigint;
  readonly endNs: bigint;
}

/** Collects the spans of one process, writes them where it is told to, and never fails its caller. */
export class SpanRecorder {
  readonly #process: SpanProcess;
  #file: string | undefined;
  #waiting: Span[] = [];

  constructor(process: SpanProcess) {
    this.#process = process;
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
    return () => {
      if (!open) return;
      open = false;
      this.add({ name, process: this.#process, startNs, endNs: now() });
    };
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
      } finally {
        closeSync(fd);
      }
    } catch {
      // A start must not fail because its measurement could not be kept: a full or removed pod folder.
    }
  }
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
