/** src/lifecycle/stdio.ts checkConsole: which terminals, console sockets and detaching go together, as runc has it. */
import test from "ava";
import { checkConsole, planStdio } from "../../src/lifecycle/stdio.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { failure, runc, temporaryFolder, writeBundle } from "./helpers.ts";

const NO_SOCKET = "cannot allocate tty if tskata will detach without setting console socket";
const NOT_BOTH = "cannot use console socket if tskata will not detach or allocate tty";

test("a detached terminal needs a socket, a socket a detached terminal", (t) => {
  const check = (terminal: boolean, detach: boolean, consoleSocket?: string) => () => checkConsole({ terminal, detach, consoleSocket });
  t.notThrows(check(false, false));
  t.notThrows(check(false, true));
  t.notThrows(check(true, false));
  t.notThrows(check(true, true, "/s"));
  t.throws(check(true, true), failure("invalid", NO_SOCKET));
  for (const [terminal, detach] of [
    [false, false],
    [false, true],
    [true, false],
  ] as const)
    t.throws(check(terminal, detach, "/s"), failure("invalid", NOT_BOTH));
});

test("runc says the same", async (t) => {
  const spec = specTemplate({ rootless: false, uid: 0, gid: 0 });
  const bundle = async (terminal: boolean, ...words: string[]): Promise<string> => {
    Object.assign(spec.process ?? {}, { terminal });
    const folder = writeBundle(temporaryFolder(t), spec);
    return (await runc("--root", temporaryFolder(t), ...words, "-b", folder, "tskata-unit-none")).stderr.replaceAll("runc", "tskata");
  };
  t.true((await bundle(true, "create")).includes(NO_SOCKET));
  t.true((await bundle(true, "run", "--console-socket", "/no/such")).includes(NOT_BOTH));
  t.true((await bundle(false, "create", "--console-socket", "/no/such")).includes(NOT_BOTH));
});

test("without a socket the caller's own descriptors are taken, and nothing is to be closed", (t) => {
  const plain = planStdio({ terminal: false, detach: true, consoleSocket: undefined });
  t.deepEqual([plain.terminal, plain.stdin, plain.stdout, plain.stderr, plain.slave], [false, 0, 1, 2, undefined]);
  const terminal = planStdio({ terminal: true, detach: false, consoleSocket: undefined });
  t.deepEqual([terminal.terminal, terminal.stdin, terminal.stdout, terminal.stderr, terminal.slave], [true, 0, 1, undefined, undefined]);
  plain.close();
  terminal.close();
});
