/** agent/io/stdio.ts: a terminal of the guest, and its caller who goes. */
import { closeSync, writeSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { StdioPreparation } from "../../agent/io/stdio.ts";
import { Streams } from "../../agent/io/streams.ts";
import { native } from "../../src/native.ts";

/** A terminal with its streams, and the caller's ends of these. */
async function terminal(t: ExecutionContext): Promise<{ slave: number; input: number; output: number }> {
  const streams = new Streams();
  const [input, stdin] = native().socketpair("stream");
  const [output, stdout] = native().socketpair("stream");
  streams.arrive(stdin, 1n);
  streams.arrive(stdout, 2n);
  const { master, slave } = native().openHostPty();
  const stdio = (await StdioPreparation.begin(streams, { stdin: 1n, stdout: 2n, stderr: 0n }, true)).connect(master);
  t.teardown(() => {
    stdio.close();
    closeSync(slave);
  });
  return { slave, input, output };
}

function writeError(fd: number): string | undefined {
  try {
    writeSync(fd, ".");
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

test("a terminal hangs up when nobody reads it any more", async (t) => {
  t.timeout(30_000);
  const { slave, input, output } = await terminal(t);
  t.is(writeError(slave), undefined);
  closeSync(output);
  let code: string | undefined;
  while (code === undefined) {
    await after(20);
    code = writeError(slave);
  }
  t.is(code, "EIO");
  closeSync(input);
});

test("a terminal whose input has ended goes on", async (t) => {
  const { slave, input, output } = await terminal(t);
  closeSync(input);
  await after(300);
  t.is(writeError(slave), undefined);
  closeSync(output);
});
