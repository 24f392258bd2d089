/** src/base/signals.ts: signals by number and by name, real-time ones too. */
import { constants } from "node:os";
import test from "ava";
import fc from "fast-check";
import { parseSignal, signalNumber } from "../../src/base/signals.ts";
import { failure } from "./helpers.ts";

test("numbers, names, names with SIG, in any case", (t) => {
  for (const text of ["9", "KILL", "SIGKILL", "sigkill", "Kill", "09"]) t.is(parseSignal(text), 9);
  t.is(parseSignal("0"), 0);
  t.is(parseSignal("77"), 77);
});

test("every name that Linux has", (t) => {
  for (const [name, number] of Object.entries(constants.signals)) {
    t.is(parseSignal(name), number);
    t.is(parseSignal(name.slice(3).toLowerCase()), number);
    t.is(signalNumber(name as NodeJS.Signals), number);
  }
});

test("real-time signals count from both ends and stay within them", (t) => {
  t.is(parseSignal("RTMIN"), 34);
  t.is(parseSignal("SIGRTMIN+3"), 37);
  t.is(parseSignal("sigrtmax-1"), 63);
  t.is(parseSignal("RTMAX"), 64);
  for (const text of ["RTMIN-1", "RTMAX+1", "RTMIN+31", "RTMIN+", "RTMIN+x"]) t.throws(() => parseSignal(text), failure("invalid", /unknown signal/));
});

test("what is no signal is refused in runc's words", (t) => {
  for (const text of ["", "SIG", "NOPE", "-9", "9 ", "SIGSIGKILL", "__proto__", "constructor", "1e1"]) {
    t.throws(() => parseSignal(text), failure("invalid", `unknown signal "${text}"`));
  }
});

test("a number that no int holds is no signal", (t) => {
  for (const text of ["4294967305", "2147483648", "99999999999999999999"]) t.throws(() => parseSignal(text), failure("invalid", /unknown signal/));
});

test("any text gives a whole number or that error", (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^(SIG)?(RT(MIN|MAX)[+-]\d{1,3}|\d{1,12})$/)), (text) => {
      try {
        const number = parseSignal(text);
        t.true(Number.isInteger(number) && number >= 0 && number <= 0x7fff_ffff);
      } catch (error) {
        t.is((error as Error).message, `unknown signal "${text}"`);
      }
    }),
  );
});
