/** src/telemetry/timeline.ts: a pod's start drawn as text and as SVG. */
import test from "ava";
import fc from "fast-check";
import type { Span } from "../../src/telemetry/spans.ts";
import { drawSvg, drawText, spansOf } from "../../src/telemetry/timeline.ts";

const MS = 1_000_000n;
const span = (name: string, start: number, end: number, process: Span["process"] = "cli"): Span => ({
  name,
  process,
  startNs: 10n ** 18n + BigInt(start) * MS,
  endNs: 10n ** 18n + BigInt(end) * MS,
});

const start = [span("create", 0, 100), span("boot", 25, 75, "guest"), span("run", 75, 100, "sandbox")];

test("text: a line a span, with its bar where its time was, and the total", (t) => {
  const cells = 40;
  t.deepEqual(drawText(start, cells + 6 + 23).split("\n"), [
    `cli     create     100.0 ms  ${"█".repeat(40)}`,
    `guest   boot        50.0 ms  ${" ".repeat(10)}${"█".repeat(20)}`,
    `sandbox run         25.0 ms  ${" ".repeat(30)}${"█".repeat(10)}`,
    "        total      100.0 ms",
    "",
  ]);
});

test("the last call of a verb, of every process what was in its time", (t) => {
  const exec = [span("exec", 1000, 1010), span("serve exec", 1002, 1008, "sandbox"), span("exec", 2000, 2010), span("serve exec", 2002, 2008, "sandbox")];
  const all = [...start, ...exec];
  t.deepEqual(spansOf("create", all), start);
  t.deepEqual(spansOf("exec", all), exec.slice(2));
  t.deepEqual(spansOf("kill", all), all, "not told");
  t.deepEqual(spansOf("create", [span("boot", 0, 1, "guest")]), [span("boot", 0, 1, "guest")]);
});

test("nothing to draw", (t) => {
  t.is(drawText([], 80), "no spans\n");
  t.regex(drawSvg([], "empty"), /^<svg .*<\/svg>\n$/s);
});

test("a span without length still has a mark", (t) => {
  const lines = drawText([span("all", 0, 100), span("end", 100, 100), span("back", 50, 40)], 60).split("\n");
  t.regex(lines[1] ?? "", /0\.0 ms +█$/);
  t.regex(lines[2] ?? "", /0\.0 ms +█$/);
  t.regex(drawText([span("only", 5, 5)], 60), /0\.0 ms +█+\n/);
});

const anySpan = fc.record({
  name: fc.string({ unit: "grapheme-ascii", maxLength: 20 }),
  process: fc.constantFrom("cli" as const, "sandbox" as const, "guest" as const),
  startNs: fc.bigInt({ min: 0n, max: 2n ** 63n }),
  endNs: fc.bigInt({ min: 0n, max: 2n ** 63n }),
});

test("any spans fit the width", (t) => {
  fc.assert(
    fc.property(fc.array(anySpan, { minLength: 1, maxLength: 8 }), fc.integer({ min: 0, max: 300 }), (spans, width) => {
      const lines = drawText(spans, width).trimEnd().split("\n");
      t.is(lines.length, spans.length + 1);
      const nameWidth = Math.max(...spans.map(({ name }) => name.length));
      const numbers = Math.max(9, ...lines.map((line) => / *([\d.e+]+) ms/.exec(line.slice(8 + nameWidth))?.[1]?.length ?? 0));
      for (const line of lines) t.true(line.length <= Math.max(width, nameWidth + 33) + numbers - 9, line);
    }),
  );
});

test("SVG: a bar a span, ticks, and the title", (t) => {
  const svg = drawSvg(start, "Start of box");
  t.is(svg.match(/<rect x="[\d.]+" y="\d+" width="[\d.]+" height="16"/g)?.length, 3);
  t.regex(svg, />Start of box</);
  t.regex(svg, />boot<\/text><rect x="485\.0" y="\d+" width="450\.0"/);
  t.deepEqual(svg.match(/(?<=fill="#666">)[^<]+/g), ["0 ms", "10 ms", "20 ms", "30 ms", "40 ms", "50 ms", "60 ms", "70 ms", "80 ms", "90 ms", "100 ms"]);
  t.regex(drawSvg([span("long", 0, 25_000)], ""), />25\.0 s</);
});

/** Enough of XML for this: tags are closed, attributes are quoted, text has no bare < or &. */
function isWellFormed(xml: string): boolean {
  const open: string[] = [];
  const token = /<(\/?)(\w+)((?: [\w-]+="[^"<&]*")*)(\/?)>|&(?:#\d+|amp|lt|gt);|[^<&]+/gy;
  let at = 0;
  for (const match of xml.matchAll(token)) {
    at += match[0].length;
    const [, closing, name, , empty] = match;
    if (name === undefined || empty === "/") continue;
    if (closing === "") open.push(name);
    else if (open.pop() !== name) return false;
  }
  return at === xml.length && open.length === 0;
}

test("SVG is well-formed whatever names there are", (t) => {
  t.false(isWellFormed("<a>&</a>"));
  t.false(isWellFormed("<a><b></a>"));
  fc.assert(
    fc.property(fc.array(anySpan, { maxLength: 6 }), fc.string(), (spans, title) => {
      const svg = drawSvg(spans, title);
      t.true(isWellFormed(svg), svg);
      t.notRegex(svg, /NaN|Infinity/);
    }),
  );
});
