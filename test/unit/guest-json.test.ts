/** src/sandbox/guest-json.ts: what a caller prints of a guest's JSON is one object on one line, whatever the guest wrote. */
import test from "ava";
import { TskataError } from "../../src/base/errors.ts";
import { guestJson } from "../../src/sandbox/guest-json.ts";

const of = (text: string): string => guestJson(Buffer.from(text), "statistics").toString();

test("an object stays what it is", (t) => {
  t.is(of('{"cpu": {"usage": 12345678901},\n "network_interfaces": null}'), '{"cpu":{"usage":12345678901},"network_interfaces":null}');
});

test("no second line and no terminal's escapes come out of strings or from around the object", (t) => {
  t.is(of('{"a": "\\n{\\"type\\":\\"oom\\"}\\u001b[2J"}\n'), '{"a":"\\n{\\"type\\":\\"oom\\"}\\u001b[2J"}');
  t.is(of('{"\u007f": "\u009b2J\u0080\u00a0"}'), '{"\\u007f":"\\u009b2J\\u0080\u00a0"}');
  t.throws(() => of('{}\n{"type":"oom"}'), { instanceOf: TskataError });
});

test("anything else is refused by what it is", (t) => {
  for (const text of ["", "null", "[]", "7", '"text"', "{", "\ufffd"]) {
    t.throws(() => of(text), { instanceOf: TskataError, message: "the agent in the guest gave statistics that are no JSON object" }, text);
  }
  t.throws(() => of(`{"a":"${"x".repeat(300_000)}"}`), { message: /gave statistics of 300008 bytes/ });
  t.throws(() => of(`{"a":${"[".repeat(120_000)}${"]".repeat(120_000)}}`), { instanceOf: TskataError });
});
