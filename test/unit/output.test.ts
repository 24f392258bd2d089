/** src/cli/output.ts: stdout written whole into any pipe, and tables as runc's. */
import { join } from "node:path";
import test from "ava";
import { printable, table } from "../../src/cli/output.ts";
import { repository, runc, runProgram, temporaryFolder } from "./helpers.ts";

/** Pipes what a script prints into a shell command; the answer is that command's output and the script's exit code. */
async function piped(script: string, into: string): Promise<string> {
  const source = `const { print } = await import(${JSON.stringify(join(repository, "src/cli/output.ts"))}); ${script}`;
  const line = `"$0" --input-type=module -e "$1" | ${into}; echo "exit \${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await runProgram("/bin/bash", ["-c", line, process.execPath, source]);
  return stdout + stderr;
}

test("all of a long text gets into a pipe with a slow reader", async (t) => {
  t.is(await piped('print("é".repeat(500000));', "(sleep 0.2; wc -c)"), "1000000\nexit 0\n");
});

test("also when the pipe doesn't block", async (t) => {
  // Opening node's stdout sets O_NONBLOCK on a pipe.
  t.is(await piped('process.stdout.write("x"); print("y".repeat(999999));', "(sleep 0.2; wc -c)"), "1000000\nexit 0\n");
});

test("a reader that has gone is no error", async (t) => {
  t.is(await piped('print("x".repeat(1000000));', "true"), "exit 0\n");
});

test("the table of no containers is runc's", async (t) => {
  const { stdout } = await runc("--root", temporaryFolder(t), "list");
  t.is(table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]), stdout);
});

test("cells are 12 wide or as wide as the longest and three spaces, the last as it is", (t) => {
  const rows = [
    ["ID", "PID", "OWNER"],
    ["short", "1", "root"],
    ["a-rather-long-name", "123456789", "somebody-else"],
    ["日本語é", "", ""],
  ];
  t.deepEqual(table(rows).split("\n"), [
    "ID                   PID         OWNER",
    "short                1           root",
    "a-rather-long-name   123456789   somebody-else",
    "日本語é                             ",
    "",
  ]);
  t.is(table([["123456789"], ["x"]]), "123456789\nx\n");
  t.is(table([["1234567890", "x"]]), "1234567890   x\n");
});

test("a guest's words are a line of text, whatever is in them", (t) => {
  t.is(printable("sh -c while :; do sleep 1; done é 漢"), "sh -c while :; do sleep 1; done é 漢");
  t.is(printable("a\nroot 1 0 fake\r\u001b[2J\u009b31m\u202e\u2028\u007f\0"), "a?root 1 0 fake??[2J?31m????");
});
