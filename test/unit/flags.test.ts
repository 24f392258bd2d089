/** src/cli/flags.ts: flags as Go's parser reads them, compared with runc's own where it has the same ones. */
import test from "ava";
import fc from "fast-check";
import { type FlagSpec, type Flags, parseDuration, parseFlags } from "../../src/cli/flags.ts";
import { UsageError } from "../../src/cli/usage-error.ts";
import { runc } from "./helpers.ts";

const specs: readonly FlagSpec[] = [
  { name: "all", alias: "a", kind: "boolean", help: "" },
  { name: "bundle", alias: "b", kind: "string", default: "here", help: "" },
  { name: "env", alias: "e", kind: "strings", help: "" },
  { name: "count", kind: "integer", help: "" },
  { name: "interval", kind: "duration", default: "5s", help: "" },
];

function parse(...words: string[]): { flags: Flags; args: string[] } {
  return parseFlags(words, { flags: specs, stopAtArgument: false });
}

const usage = (message: string): { instanceOf: typeof UsageError; message: string } => ({ instanceOf: UsageError, message });

test("one dash or two, value after = or in the next word", (t) => {
  for (const words of [["--bundle", "x"], ["--bundle=x"], ["-bundle", "x"], ["-bundle=x"], ["-b", "x"], ["--b=x"]]) {
    const { flags, args } = parse(...words, "rest");
    t.is(flags.string("bundle"), "x");
    t.true(flags.has("bundle"));
    t.deepEqual(args, ["rest"]);
  }
  t.is(parse("--bundle=a=b").flags.string("bundle"), "a=b");
  t.is(parse("--bundle", "--all").flags.string("bundle"), "--all");
  t.is(parse("--bundle=a\nb").flags.string("bundle"), "a\nb");
});

test("absent: the default, nothing, false; empty counts as absent", (t) => {
  const { flags } = parse();
  t.is(flags.string("bundle"), "here");
  t.is(flags.string("count"), undefined);
  t.is(flags.integer("count"), undefined);
  t.is(flags.milliseconds("interval"), 5000);
  t.false(flags.boolean("all"));
  t.false(flags.has("all"));
  t.deepEqual(flags.strings("env"), []);
  t.is(parse("--bundle=").flags.string("bundle"), undefined);
});

test("of several the last counts, of a list all", (t) => {
  t.is(parse("--bundle", "x", "-b=y").flags.string("bundle"), "y");
  t.deepEqual(parse("-e", "A=1", "--env=B=2", "x", "-e", "C").flags.strings("env"), ["A=1", "B=2", "C"]);
  t.false(parse("--all", "--all=false").flags.boolean("all"));
});

test("booleans take a value only with =", (t) => {
  for (const word of ["--all", "--all=1", "-a=t", "--all=T", "--all=true", "--all=TRUE", "--all=True"]) t.true(parse(word).flags.boolean("all"), word);
  for (const word of ["--all=0", "--all=f", "--all=F", "--all=false", "--all=FALSE", "--all=False"]) t.false(parse(word).flags.boolean("all"), word);
  t.deepEqual(parse("--all", "false").args, ["false"]);
  t.throws(() => parse("--all=maybe"), usage('invalid boolean value "maybe" for -all: parse error'));
});

test("numbers and durations are checked when they are given", (t) => {
  t.is(parse("--count", "-5").flags.integer("count"), -5);
  t.is(parse("--count=+7").flags.integer("count"), 7);
  t.is(parse("--interval=1m30s").flags.milliseconds("interval"), 90_000);
  for (const value of ["", "x", "1.5", "1 "]) t.throws(() => parse(`--count=${value}`), usage(`invalid value "${value}" for flag -count: parse error`));
  for (const value of ["", "5", "s", "1x"]) t.throws(() => parse(`--interval=${value}`), usage(`invalid value "${value}" for flag -interval: parse error`));
});

test("what is no flag of ours, and a flag without its value", (t) => {
  t.throws(() => parse("--nope"), usage("flag provided but not defined: -nope"));
  t.throws(() => parse("-9"), usage("flag provided but not defined: -9"));
  t.throws(() => parse("-ab"), usage("flag provided but not defined: -ab"));
  t.throws(() => parse("--bundle"), usage("flag needs an argument: -bundle"));
  t.throws(() => parse("---x"), usage("bad flag syntax: ---x"));
  t.throws(() => parse("-=x"), usage("bad flag syntax: -=x"));
  t.throws(() => parse("--=x"), usage("bad flag syntax: --=x"));
});

test("known flags may follow the arguments, others are arguments there", (t) => {
  const { flags, args } = parse("box", "--all", "-9", "--nope", "-", "--bundle", "x", "---");
  t.true(flags.boolean("all"));
  t.is(flags.string("bundle"), "x");
  t.deepEqual(args, ["box", "-9", "--nope", "-", "---"]);
});

test("-- ends the flags, anywhere", (t) => {
  t.deepEqual(parse("--", "--all").args, ["--all"]);
  const { flags, args } = parse("box", "--", "--all", "--");
  t.false(flags.boolean("all"));
  t.deepEqual(args, ["box", "--all", "--"]);
});

test("where arguments are a command, the first one ends the flags", (t) => {
  const { flags, args } = parseFlags(["-b", "x", "box", "ls", "--all", "--", "-e"], { flags: specs, stopAtArgument: true });
  t.is(flags.string("bundle"), "x");
  t.false(flags.boolean("all"));
  t.deepEqual(args, ["box", "ls", "--all", "--", "-e"]);
  t.deepEqual(parseFlags(["--", "--all", "x"], { flags: specs, stopAtArgument: true }).args, ["--all", "x"]);
});

test("runc says the same of the same words", async (t) => {
  const kill: FlagSpec[] = [{ name: "all", alias: "a", kind: "boolean", help: "" }];
  const events: FlagSpec[] = [
    { name: "interval", kind: "duration", help: "" },
    { name: "stats", kind: "boolean", help: "" },
  ];
  const cases: [string, FlagSpec[], string[]][] = [
    ["kill", kill, ["--nope", "x"]],
    ["kill", kill, ["-9", "x"]],
    ["kill", kill, ["--all=maybe", "x"]],
    ["kill", kill, ["---all", "x"]],
    ["kill", kill, ["-=", "x"]],
    ["kill", kill, ["--a=", "x"]],
    ["events", events, ["--interval"]],
    ["events", events, ["--interval=5", "x"]],
    ["events", events, ["--interval", "1d", "x"]],
  ];
  await Promise.all(
    cases.map(async ([verb, flags, words]) => {
      const said = /^Incorrect Usage: (.*)$/m.exec((await runc(verb, ...words)).stdout)?.[1];
      t.truthy(said, words.join(" "));
      t.throws(() => parseFlags(words, { flags, stopAtArgument: false }), usage(said ?? ""), words.join(" "));
    }),
  );
});

test("durations are read as Go reads them", async (t) => {
  const good: [string, number][] = [
    ["0", 0],
    ["0s", 0],
    ["5s", 5000],
    ["1.5s", 1500],
    [".5s", 500],
    ["1.s", 1000],
    ["1h2m3s", 3_723_000],
    ["250ms", 250],
    ["10us", 0.01],
    ["10\u00b5s", 0.01],
    ["10\u03bcs", 0.01],
    ["1000000ns", 1],
    ["1m1m", 120_000],
  ];
  const bad = ["", "5", "s", ".s", "1 s", "1S", "1d", "1.5.5s", "5s ", "s5", "1e3s", "٣s"];
  for (const [text, milliseconds] of good) t.true(Math.abs((parseDuration(text) ?? Number.NaN) - milliseconds) < 1e-9, text);
  for (const text of bad) t.is(parseDuration(text), undefined, text);
  const verdicts = await Promise.all(
    [...good.map(([text]) => text), ...bad].map(async (text) =>
      (await runc("events", `--interval=${text}`, "tskata-unit-none")).stdout.includes("invalid value"),
    ),
  );
  t.deepEqual(verdicts, [...good.map(() => false), ...bad.map(() => true)]);
});

test("a duration made of parts is their sum", (t) => {
  const part = fc.tuple(fc.nat(100_000), fc.constantFrom(["h", 3_600_000], ["m", 60_000], ["s", 1000], ["ms", 1]) as fc.Arbitrary<[string, number]>);
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 6 }), (parts) => {
      const text = parts.map(([amount, [unit]]) => `${amount}${unit}`).join("");
      t.is(
        parseDuration(text),
        parts.reduce((sum, [amount, [, ms]]) => sum + amount * ms, 0),
      );
    }),
  );
});

test("any words are flags and arguments or a usage error; no word is lost or made up", (t) => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom("--all", "-a", "--bundle", "--bundle=x", "-e", "--count=5", "--interval", "1s", "--", "-", "box", "--all=0"),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 8 }), fc.boolean(), (words, stopAtArgument) => {
      try {
        const { args } = parseFlags(words, { flags: specs, stopAtArgument });
        let at = 0;
        for (const arg of args) {
          at = words.indexOf(arg, at) + 1;
          t.true(at > 0);
        }
        if (stopAtArgument) t.deepEqual(args, words.slice(words.length - args.length));
      } catch (error) {
        t.true(error instanceof UsageError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});
