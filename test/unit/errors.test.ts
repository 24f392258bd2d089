/** src/base/errors.ts: the error type, and a chain of causes told as one sentence. */
import test from "ava";
import fc from "fast-check";
import { errorChain, TskataError } from "../../src/base/errors.ts";

test("an error carries its code and its cause", (t) => {
  const cause = new Error("below");
  const error = new TskataError("exists", "above", { cause });
  t.is(error.code, "exists");
  t.is(error.name, "TskataError");
  t.is(error.cause, cause);
});

test("causes are told outermost first", (t) => {
  const low = new Error("EACCES: permission denied");
  const middle = new Error("open /dev/kvm", { cause: low });
  t.is(errorChain(new TskataError("unavailable", "start vm", { cause: middle })), "start vm: open /dev/kvm: EACCES: permission denied");
});

test("a cause that the message above already tells is left out, and so is an empty one", (t) => {
  t.is(errorChain(new Error("read f: EIO", { cause: new Error("EIO") })), "read f: EIO");
  t.is(errorChain(new Error("", { cause: new Error("why") })), "why");
});

test("what is thrown need not be an error", (t) => {
  t.is(errorChain("plain"), "plain");
  t.is(errorChain(undefined), "");
  t.is(errorChain(null), "");
  t.is(errorChain(new Error("outer", { cause: 42 })), "outer: 42");
});

test("causes that go in a circle end", (t) => {
  const one = new Error("one");
  const two = new Error("two", { cause: one });
  one.cause = two;
  t.regex(errorChain(one), /^one: two/);
  const self = new Error("self");
  self.cause = self;
  t.is(errorChain(self), "self");
});

test("every message of a chain is told, whatever it holds", (t) => {
  fc.assert(
    fc.property(fc.array(fc.string(), { minLength: 1, maxLength: 12 }), (messages) => {
      const chain = messages.reduceRight<Error | undefined>((cause, message) => new Error(message, cause && { cause }), undefined);
      const said = errorChain(chain);
      for (const message of messages) t.true(said.includes(message));
    }),
  );
});
