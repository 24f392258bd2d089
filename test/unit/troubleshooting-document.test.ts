/** docs/troubleshooting.md against src/base/failures.ts and the spans' names: the same failures, causes, remedies and phases. */
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { explanation, FAILURES, type FailureCode, sayPhase } from "../../src/base/failures.ts";
import { repository } from "./helpers.ts";

const text = readFileSync(join(repository, "docs/troubleshooting.md"), "utf8");

test("every failure is told with its cause and its remedy, in the table's order, and nothing else is", (t) => {
  const told = text
    .split(/^### /m)
    .slice(1)
    .map((part) => {
      const [, code = "", cause = "", remedy = "", more = ""] =
        /^`([^`]+)`\n\n- \*\*Likely cause\*\*: ([^\n]*)\n- \*\*What to do\*\*: ([^\n]*)\n\n(.*)$/s.exec(part) ?? [];
      t.regex(more, /^.{30,}\n$/s, code);
      return [code, { cause, remedy }];
    });
  t.deepEqual(told, Object.entries(FAILURES));
});

test("every phase of a start is told, and each that is told exists", (t) => {
  const sources = globSync(["src/sandbox/*.ts", "src/lifecycle/*.ts"], { cwd: repository }).map((file) => readFileSync(join(repository, file), "utf8"));
  const measured = sources.flatMap((source) => [...source.matchAll(/(?:measure|explaining|inPhase)\(\s*"([^"]+)"/g)].map((match) => match[1] ?? ""));
  const documented = [...text.matchAll(/^\| `([^`]+)` +\|.*$/gm)].flatMap((row) => [...row[0].matchAll(/`([a-z ]+)`/g)].map((match) => match[1] ?? ""));
  // What went wrong while the bundle was read is an error about what was asked for.
  const phases = measured.filter((name) => name !== "read bundle");
  for (const name of phases) t.true(documented.includes(name), name);
  for (const row of text.matchAll(/^\| `([a-z ]+)` +\|/gm)) t.true(phases.includes(row[1] ?? ""), row[1]);
});

test("the example has the form that errors have", (t) => {
  const [first = "", ...rest] = (/```\n(.*?)\n```/s.exec(text)?.[1] ?? "").split("\n");
  t.true(first.startsWith(`runtime create failed ${sayPhase({ name: "boot until the agent listens", seconds: 2.3 })}: `));
  const form = (lines: string): string[] => lines.split("\n").map((line) => /^ *[^:]*:?/.exec(line)?.[0] ?? "");
  t.deepEqual(form(rest.join("\n")), form(explanation("agent-crashed", "m", [["guest console", "…"]])));
});

test("a first line can be understood alone: causes and remedies are sentences without their end, short enough for a terminal", (t) => {
  for (const [code, { cause, remedy }] of Object.entries(FAILURES) as [FailureCode, { cause: string; remedy: string }][]) {
    for (const sentence of [cause, remedy]) t.regex(sentence, /^[^\n]{30,200}[^.\n]$/, code);
  }
});
