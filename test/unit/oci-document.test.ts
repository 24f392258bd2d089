/** docs/oci.md against the schema of src/oci/spec.ts, the list of src/oci/refusals.ts and the tests that it names. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import type { $ZodType, $ZodTypes } from "zod/v4/core";
import { IGNORED, REFUSED, REFUSED_RESOURCES, refusedPaths } from "../../src/oci/refusals.ts";
import { specSchema } from "../../src/oci/spec.ts";
import { repository } from "./helpers.ts";

interface Row {
  readonly path: string;
  readonly outcome: string;
  readonly tests: readonly { readonly file: string; readonly title: string }[];
}

/** The rows of the tables under "## Fields". */
function rows(): Row[] {
  const text = readFileSync(join(repository, "docs/oci.md"), "utf8");
  const fields = /^## Fields$(.*?)^## /ms.exec(text)?.[1] ?? "";
  return fields
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => {
      const [path = "", outcome = "", tests = "", ...rest] = line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim());
      if (rest.length > 0) throw new Error(`a row has too many cells: ${line}`);
      return { path: path.replaceAll("`", ""), outcome, tests: tests.split(/; (?=`)/).map(named) };
    });
}

function named(text: string): { file: string; title: string } {
  const [, file = "", title = ""] = /^`([\w/-]+)` (.+)$/.exec(text) ?? [];
  return { file, title };
}

interface Paths {
  readonly leaves: string[];
  readonly all: string[];
}

/** Every path of a schema, written as in the document: "[]" for the items of a list. */
function pathsOf(schema: $ZodType, at: string): Paths {
  const { def } = (schema as $ZodTypes)._zod;
  switch (def.type) {
    case "optional":
      return pathsOf(def.innerType, at);
    case "object":
      return above(at, ...Object.entries(def.shape).map(([key, member]) => pathsOf(member, at === "" ? key : `${at}.${key}`)));
    case "array":
      return above(at, isScalar(def.element) ? { leaves: [], all: [] } : pathsOf(def.element, `${at}[]`));
    case "record":
      return above(at, isScalar(def.valueType) ? { leaves: [], all: [] } : pathsOf(def.valueType, `${at}.*`));
    default:
      return { leaves: [at], all: [at] };
  }
}

function isScalar(schema: $ZodType): boolean {
  return !["optional", "object", "array", "record"].includes((schema as $ZodTypes)._zod.def.type);
}

function above(at: string, ...below: Paths[]): Paths {
  const leaves = below.flatMap((paths) => paths.leaves);
  return { leaves: leaves.length === 0 ? [at] : leaves, all: [at, ...below.flatMap(({ all }) => all)] };
}

/** Whether a row for `path` speaks of `field`, too. */
function covers(path: string, field: string): boolean {
  return field === path || field.startsWith(`${path}.`) || field.startsWith(`${path}[]`);
}

const documented = rows();
const schema = pathsOf(specSchema, "");

test("every field of the schema has one row, and every row a field", (t) => {
  t.true(schema.leaves.length > 150);
  for (const field of schema.leaves) {
    const found = documented.filter(({ path }) => covers(path, field));
    t.is(found.length, 1, `${field}: ${found.map(({ path }) => path).join(", ")}`);
  }
  for (const { path } of documented) t.true(schema.all.includes(path), path);
});

test("a field that is not in the document would be found", (t) => {
  t.false(documented.some(({ path }) => covers(path, "linux.netDevices") || covers(path, "process.user.uidx")));
  t.true(covers("hooks.prestart", "hooks.prestart[].path") && covers("linux.rdma", "linux.rdma.*.x") && !covers("linux.devices", "linux.devicesX"));
});

test("what is refused and ignored is what the code refuses and ignores, in its words", (t) => {
  const whys = new Map(
    [...REFUSED, ...IGNORED, ...REFUSED_RESOURCES.map(({ path, why }) => ({ path: `linux.resources.${path}`, why }))].map(({ path, why }) => [path, why]),
  );
  const starting = (word: string): string[] => documented.filter(({ outcome }) => outcome.startsWith(word)).map(({ path }) => path);
  const partly = ["linux.resources.memory.useHierarchy"];
  t.deepEqual([...starting("refused: "), ...partly].sort(), refusedPaths().sort());
  t.deepEqual(starting("ignored with a warning: ").sort(), IGNORED.map(({ path }) => path).sort());
  for (const { path, outcome } of documented) {
    t.regex(outcome, /^(applied|refused: |ignored with a warning: )/, path);
    const why = whys.get(path);
    if (why !== undefined && !partly.includes(path)) t.true(outcome.endsWith(`: ${why}`), `${path}: ${why}`);
  }
});

test("every row names tests that are there", (t) => {
  for (const { path, tests } of documented) {
    for (const { file, title } of tests) {
      const source = join(repository, "test", `${file}.test.ts`);
      t.true(existsSync(source), `${path}: ${file}`);
      t.true(existsSync(source) && titles(source).has(title), `${path}: no test "${title}" in ${source}`);
    }
  }
});

const titlesOf = new Map<string, ReadonlySet<string>>();

function titles(file: string): ReadonlySet<string> {
  const known =
    titlesOf.get(file) ?? new Set([...readFileSync(file, "utf8").matchAll(/^\s*test(?:\.serial)?\(\s*"((?:[^"\\]|\\.)*)"/gm)].map((match) => match[1] ?? ""));
  titlesOf.set(file, known);
  return known;
}
