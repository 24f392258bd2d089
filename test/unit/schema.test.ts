/** src/base/schema.ts: zod's issues as sentences with path and finding, and Go's nulls dropped. */
import test from "ava";
import fc from "fast-check";
import * as z from "zod/mini";
import { dropNulls, sayIssues, sayPath } from "../../src/base/schema.ts";

function say(schema: z.ZodMiniType, value: unknown): string {
  const result = schema.safeParse(value);
  return result.success ? "valid" : sayIssues(result.error.issues, value);
}

const whole = z.object({ n: z.int().check(z.minimum(1), z.maximum(9)) });

test("an issue names the path, what was expected and what is there", (t) => {
  t.is(say(z.object({ args: z.array(z.string()) }), { args: ["a", 5] }), "args[1]: expected a string, found 5");
  t.is(say(whole, { n: "x" }), 'n: expected a number, found "x"');
  t.is(say(whole, { n: 1.5 }), "n: expected a whole number, found 1.5");
  t.is(say(whole, { n: 0 }), "n: expected at least 1, found 0");
  t.is(say(whole, { n: 10 }), "n: expected at most 9, found 10");
  t.is(say(whole, {}), "n: missing");
  t.is(say(whole, []), "(document): expected an object, found an array");
  t.is(say(whole, null), "(document): expected an object, found null");
  t.is(say(z.object({ r: z.record(z.string(), z.string()) }), { r: "x" }), 'r: expected an object, found "x"');
  t.is(say(z.object({ a: z.array(z.string()) }), { a: {} }), "a: expected an array, found an object");
  t.is(say(z.object({ e: z.enum(["a", "b", "c"]) }), { e: "d" }), 'e: expected "a", "b" or "c", found "d"');
  t.is(say(z.object({ v: z.literal(1) }), { v: 2 }), "v: expected 1, found 2");
  t.is(say(z.strictObject({ a: z.optional(z.string()) }), { b: 1 }), '(document): unknown key "b"');
  t.is(say(z.strictObject({}), { b: 1, c: 2 }), '(document): unknown key "b" or "c"');
});

test("a bound that is not allowed itself keeps its own message", (t) => {
  const schema = z.object({ timeout: z.int().check(z.positive("expected more than 0 seconds")) });
  t.is(say(schema, { timeout: 0 }), "timeout: expected more than 0 seconds, found 0");
});

test("a length keeps its own message", (t) => {
  t.is(say(z.object({ s: z.string().check(z.minLength(1, "expected a path")) }), { s: "" }), 's: expected a path, found ""');
});

test("numbers that JSON can't write are named", (t) => {
  t.is(say(whole, { n: Number.NaN }), "n: expected a number, found NaN");
  t.is(say(whole, { n: Number.POSITIVE_INFINITY }), "n: expected a number, found Infinity");
});

test("at most three issues are told, and long values are cut", (t) => {
  const schema = z.object({ a: z.string(), b: z.string(), c: z.string(), d: z.string(), e: z.string() });
  t.is(say(schema, {}), "a: missing; b: missing; c: missing; and 2 more");
  const said = say(z.object({ n: z.number() }), { n: "x".repeat(10_000) });
  t.true(said.length < 150);
});

test("paths are written as JavaScript would", (t) => {
  t.is(sayPath([]), "(document)");
  t.is(sayPath(["linux", "namespaces", 2, "type"]), "linux.namespaces[2].type");
  t.is(sayPath(["annotations", "a.b/c"]), 'annotations["a.b/c"]');
  t.is(sayPath([0, "x"]), "[0].x");
});

test("object members that are null go; those of arrays stay", (t) => {
  t.deepEqual(dropNulls({ a: null, b: { c: null, d: 0 }, e: [null, { f: null }] }), { b: { d: 0 }, e: [null, {}] });
  t.is(dropNulls(null), null);
  t.is(dropNulls("x"), "x");
});

test("dropping nulls changes nothing else of a JSON value", (t) => {
  const strip = (value: unknown): unknown => JSON.parse(JSON.stringify(value), (_, member: unknown) => (member === null ? undefined : member)) as unknown;
  // As it is read: JSON's text of -0 is 0, and fast-check makes both.
  const read = fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as unknown);
  fc.assert(
    fc.property(read, (value) => {
      const dropped = dropNulls(value);
      t.deepEqual(dropNulls(dropped), dropped);
      if (!JSON.stringify(value).includes("null")) t.deepEqual(dropped, value);
      else if (!JSON.stringify(value).includes("[")) t.deepEqual(dropped ?? undefined, strip(value));
    }),
  );
});

test("a member named __proto__ stays a member", (t) => {
  const dropped = dropNulls(JSON.parse('{"__proto__": {"x": 1, "y": null}}')) as object;
  t.is(JSON.stringify(dropped), '{"__proto__":{"x":1}}');
  t.is(Object.getPrototypeOf(dropped), Object.prototype);
});

test("any issue of any value can be said", (t) => {
  const schema = z.strictObject({
    a: z.int().check(z.minimum(0)),
    b: z.array(z.enum(["x", "y"])),
    c: z.record(z.string(), z.strictObject({ d: z.optional(z.string().check(z.startsWith("/", "expected an absolute path"))) })),
  });
  const member = fc.constantFrom("a", "b", "c", "d");
  const value = fc.oneof(
    fc.jsonValue(),
    fc.dictionary(member, fc.jsonValue()),
    fc.record({ a: fc.double(), b: fc.array(member), c: fc.dictionary(member, fc.object()) }),
  );
  fc.assert(fc.property(value, (any) => t.is(typeof say(schema, any), "string")));
});
