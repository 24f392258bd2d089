/** The timeline of a pod's start: its spans read back, as bars in the terminal and as an SVG drawing. */
import { existsSync } from "node:fs";
import * as z from "zod/mini";
import { readPodFile } from "../base/pod-file.ts";
import { type Span, spanFiles } from "./spans.ts";

/** Times stay bigint: nanoseconds since boot pass 2^53 after 104 days. */
const spanSchema = z.object({
  name: z.string(),
  process: z.enum(["cli", "sandbox", "guest"]),
  startNs: z.string().check(z.regex(/^\d+$/)),
  endNs: z.string().check(z.regex(/^\d+$/)),
});

const NAME_LIMIT = 200;

/** Reads spans.jsonl, its older parts before it; lines cut short by a crash are left out. Sorted by start, longer first. */
export function readSpans(file: string): Span[] {
  const parts = spanFiles(file).filter((part) => existsSync(part));
  if (parts.length === 0) throw new Error(`there is no ${file}`);
  const spans = parts.flatMap((part) => readPodFile(part).split("\n")).flatMap(parseLine);
  return spans.sort((a, b) => compare(a.startNs, b.startNs) || compare(b.endNs, a.endNs));
}

/** Those in the time of the last call of a verb; all when that has not come to its end. */
export function spansOf(verb: string, spans: readonly Span[]): Span[] {
  const call = spans.findLast(({ name, process }) => name === verb && process === "cli");
  return spans.filter((span) => call === undefined || (span.endNs >= call.startNs && span.startNs <= call.endNs));
}

function parseLine(line: string): Span[] {
  try {
    // Digits to text before JSON.parse, which would round them.
    const parsed = spanSchema.safeParse(JSON.parse(line.replace(/("(?:startNs|endNs)":)(\d+)/g, '$1"$2"')));
    if (!parsed.success) return [];
    const { name, process, startNs, endNs } = parsed.data;
    return [{ name: shown(name), process, startNs: BigInt(startNs), endNs: BigInt(endNs) }];
  } catch {
    return [];
  }
}

/** A guest chooses its spans' names; a terminal would obey what is in them, and XML has no control characters. */
function shown(name: string): string {
  return name.slice(0, NAME_LIMIT).replace(/\p{C}/gu, "?");
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

interface Row {
  readonly name: string;
  readonly process: Span["process"];
  /** Milliseconds from the first span's start. */
  readonly start: number;
  readonly length: number;
}

function rows(spans: readonly Span[]): { rows: Row[]; total: number } {
  const first = [...spans].sort((a, b) => compare(a.startNs, b.startNs))[0]?.startNs ?? 0n;
  const made = spans.map((span) => ({
    name: span.name,
    process: span.process,
    start: Number(span.startNs - first) / 1e6,
    length: Math.max(0, Number(span.endNs - span.startNs) / 1e6),
  }));
  return { rows: made, total: Math.max(...made.map((row) => row.start + row.length), 0.001) };
}

/** One line a span: process, name, milliseconds, bar. `width` is the terminal's. */
export function drawText(spans: readonly Span[], width: number): string {
  if (spans.length === 0) return "no spans\n";
  const { rows: drawn, total } = rows(spans);
  const nameWidth = Math.max(...drawn.map((row) => row.name.length));
  const cells = Math.max(10, width - nameWidth - 23);
  const lines = drawn.map((row) => {
    const from = Math.min(cells - 1, Math.floor((row.start / total) * cells));
    const length = Math.max(1, Math.min(cells - from, Math.round((row.length / total) * cells)));
    const bar = " ".repeat(from) + "█".repeat(length);
    return `${row.process.padEnd(8)}${row.name.padEnd(nameWidth)} ${row.length.toFixed(1).padStart(9)} ms  ${bar}`;
  });
  return `${lines.join("\n")}\n${"".padEnd(8)}${"total".padEnd(nameWidth)} ${total.toFixed(1).padStart(9)} ms\n`;
}

const COLOURS: Record<Span["process"], string> = { cli: "#4c78a8", sandbox: "#f58518", guest: "#54a24b" };
const ROW_HEIGHT = 22;
const LABEL_WIDTH = 260;
const CHART_WIDTH = 900;
const RIGHT_MARGIN = 90;
const TOP = 48;

export function drawSvg(spans: readonly Span[], title: string): string {
  const { rows: drawn, total } = rows(spans);
  const height = TOP + drawn.length * ROW_HEIGHT + 12;
  const width = LABEL_WIDTH + CHART_WIDTH + RIGHT_MARGIN;
  const body = [
    `<text x="8" y="18" font-weight="bold">${escapeXml(title)}</text>`,
    ...Object.entries(COLOURS).map(([name, colour], index) => legend(name, colour, index)),
    ...ticks(total, height),
    ...drawn.map((row, index) => bar(row, index, total)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="white"/>
${body.join("\n")}
</svg>
`;
}

function legend(name: string, colour: string, index: number): string {
  const x = LABEL_WIDTH + index * 90;
  return `<rect x="${x}" y="8" width="12" height="12" fill="${colour}"/><text x="${x + 16}" y="18">${name}</text>`;
}

function ticks(total: number, height: number): string[] {
  const step = tickStep(total);
  const made: string[] = [];
  for (let at = 0; at <= total; at += step) {
    const x = (LABEL_WIDTH + (at / total) * CHART_WIDTH).toFixed(1);
    made.push(`<line x1="${x}" y1="${TOP - 6}" x2="${x}" y2="${height - 6}" stroke="#ddd"/><text x="${x}" y="${TOP - 10}" fill="#666">${sayMs(at)}</text>`);
  }
  return made;
}

/** 1, 2 or 5 times a power of ten, at most ten ticks. */
function tickStep(total: number): number {
  const rough = total / 10;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= rough) ?? 10;
  return factor * power;
}

function bar(row: Row, index: number, total: number): string {
  const y = TOP + index * ROW_HEIGHT;
  const x = LABEL_WIDTH + (row.start / total) * CHART_WIDTH;
  const width = Math.max(1, (row.length / total) * CHART_WIDTH);
  const text = y + 14;
  return `<text x="8" y="${text}">${escapeXml(row.name)}</text><rect x="${x.toFixed(1)}" y="${y + 2}" width="${width.toFixed(1)}" height="${ROW_HEIGHT - 6}" fill="${COLOURS[row.process]}"/><text x="${(x + width + 4).toFixed(1)}" y="${text}" fill="#333">${sayMs(row.length)}</text>`;
}

function sayMs(milliseconds: number): string {
  return milliseconds >= 10_000 ? `${(milliseconds / 1000).toFixed(1)} s` : `${Number(milliseconds.toPrecision(3))} ms`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
