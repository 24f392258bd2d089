/** src/telemetry/spans.ts and its reader in timeline.ts: spans written by several processes, read back whole. */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { formatSpan, now, type Span, SpanRecorder } from "../../src/telemetry/spans.ts";
import { readSpans } from "../../src/telemetry/timeline.ts";
import { temporaryFolder } from "./helpers.ts";

const span = (name: string, startNs: bigint, endNs: bigint, process: Span["process"] = "cli"): Span => ({ name, process, startNs, endNs });

test("spans before the file is known are kept until it is", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const recorder = new SpanRecorder("cli");
  recorder.begin("early")();
  recorder.writeTo(file);
  recorder.begin("late")();
  t.deepEqual(
    readSpans(file).map(({ name, process }) => [name, process]),
    [
      ["early", "cli"],
      ["late", "cli"],
    ],
  );
  t.is(statSync(file).mode & 0o777, 0o600);
});

test("a span goes from begin to its end, once", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const recorder = new SpanRecorder("sandbox");
  recorder.writeTo(file);
  const before = now();
  const end = recorder.begin("one");
  end();
  end();
  const [read, ...more] = readSpans(file);
  t.deepEqual(more, []);
  t.true(read !== undefined && before <= read.startNs && read.startNs <= read.endNs && read.endNs <= now());
  recorder.begin("since", 5n)();
  t.is(readSpans(file)[0]?.startNs, 5n);
});

test("work is measured also when it fails", async (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const recorder = new SpanRecorder("guest");
  recorder.writeTo(file);
  t.is(await recorder.measure("good", async () => 7), 7);
  await t.throwsAsync(
    recorder.measure("bad", () => {
      throw new Error("no");
    }),
    { message: "no" },
  );
  t.deepEqual(
    readSpans(file)
      .map(({ name }) => name)
      .sort(),
    ["bad", "good"],
  );
});

test("a file that can't be written fails nobody", (t) => {
  const recorder = new SpanRecorder("cli");
  recorder.begin("early")();
  t.notThrows(() => recorder.writeTo("/no/such/folder/spans.jsonl"));
  t.notThrows(() => recorder.begin("late")());
});

test("several processes append to one file", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const recorders = (["cli", "sandbox", "guest"] as const).map((name) => new SpanRecorder(name));
  for (const recorder of recorders) recorder.writeTo(file);
  for (let round = 0; round < 5; round++) for (const recorder of recorders) recorder.begin(`r${round}`)();
  t.is(readFileSync(file, "utf8").split("\n").length, 16);
  t.is(readSpans(file).length, 15);
});

test("spans come back sorted by start, the longer first, exact beyond 2^53", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const late = 2n ** 62n + 1n;
  const spans = [span("c", late, late + 1n), span("b", 5n, 6n), span("a", 5n, 9n, "guest")];
  writeFileSync(file, spans.map(formatSpan).join(""));
  t.deepEqual(readSpans(file), [spans[2], spans[1], spans[0]] as Span[]);
});

test("lines cut short or of no span are left out", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const good = formatSpan(span("good", 1n, 2n));
  const bad = [
    '{"name":"x"}',
    "null",
    "{",
    '{"name":"x","process":"host","startNs":1,"endNs":2}',
    '{"name":"x","process":"cli","startNs":-1,"endNs":2}',
    '{"name":"x","process":"cli","startNs":1.5,"endNs":2}',
  ];
  writeFileSync(file, `${good}${bad.join("\n")}\n\n${good.slice(0, 30)}`);
  t.deepEqual(
    readSpans(file).map(({ name }) => name),
    ["good"],
  );
  mkdirSync(`${file}.d`);
  t.throws(() => readSpans(`${file}.d`), { message: /no regular file/ });
});

test("a guest's names come without what a terminal would obey, and not endless", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  writeFileSync(file, formatSpan(span("a\u001b[2Jb\nc\u202ed\u009b é", 1n, 2n)) + formatSpan(span("x".repeat(10_000), 2n, 3n)));
  const [first, second] = readSpans(file);
  t.is(first?.name, "a?[2Jb?c?d? é");
  t.true((second?.name.length ?? 0) < 1000);
});

test("any span is read as it was written, whatever garbage is between", (t) => {
  const file = join(temporaryFolder(t), "spans.jsonl");
  const names = fc.string({ unit: "grapheme", maxLength: 20 }).filter((name) => !/\p{C}/u.test(name));
  const time = fc.bigInt({ min: 0n, max: 2n ** 64n });
  const garbage = fc
    .oneof(fc.string(), fc.json())
    .map((text) => `${text.replaceAll("\n", "")}\n`)
    .filter((text) => !text.includes("startNs"));
  fc.assert(
    fc.property(fc.array(fc.tuple(names, time, time, garbage), { maxLength: 5 }), (parts) => {
      writeFileSync(file, "");
      const spans = parts.map(([name, start, end]) => span(name, start, end));
      for (const [index, [, , , noise]] of parts.entries()) appendFileSync(file, formatSpan(spans[index] ?? span("", 0n, 0n)) + noise);
      const key = ({ name, startNs, endNs }: Span): string => `${startNs} ${endNs} ${name}`;
      t.deepEqual(readSpans(file).map(key).sort(), spans.map(key).sort());
    }),
    { numRuns: 50 },
  );
});

test("the files do not grow for ever, and have the pod's first spans and its last", (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, "spans.jsonl");
  const recorder = new SpanRecorder("cli");
  recorder.writeTo(file);
  const many = 20_000;
  for (let index = 0; index < many; index++) recorder.add(span(`exec ${index}`, BigInt(index), BigInt(index + 1)));
  const total = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  t.true(total < 1024 * 1024, `${total} bytes`);
  const kept = readSpans(file).map(({ startNs }) => Number(startNs));
  t.is(kept[0], 0);
  t.is(kept.at(-1), many - 1);
  t.true(kept.includes(many - 2000));
  t.true(kept.length < many);
});
