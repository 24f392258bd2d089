/** native().logConsole: a hypervisor's console in a file that keeps its beginning and its end, whatever is printed. */

import { readFileSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "ava";
import { native } from "../../src/native.ts";
import { temporaryFolder } from "./helpers.ts";

const LIMIT = 1024 * 1024;

test("what a guest prints is in the file when the last writer has gone", async (t) => {
  const file = join(temporaryFolder(t), "console.log");
  const [read, write] = native().pipe();
  const written = native().logConsole(read, file);
  await writeFile(`/proc/self/fd/${write}`, "boot\nend\n");
  native().closeFd(write);
  await written;
  t.is(readFileSync(file, "utf8"), "boot\nend\n");
  t.is(statSync(file).mode & 0o777, 0o600);
});

test("a flood leaves its beginning, its end and how much is missing, within 1 MiB", async (t) => {
  const file = join(temporaryFolder(t), "console.log");
  const [read, write] = native().pipe();
  const written = native().logConsole(read, file);
  await writeFile(`/proc/self/fd/${write}`, `begin\n${"flood of the guest\n".repeat(400_000)}end\n`);
  native().closeFd(write);
  await written;
  const text = readFileSync(file, "utf8");
  t.true(text.length <= LIMIT && text.startsWith("begin\nflood") && text.endsWith("guest\nend\n"));
  t.regex(text, /\d+ bytes of console output left out here/);
});

test("no pipe, no file: refused", (t) => {
  t.throws(() => native().logConsole(-1, "/tmp/x"), { code: "EBADF" });
  const [read, write] = native().pipe();
  t.throws(() => native().logConsole(read, "/no/such/console.log"), { code: "ENOENT", message: /open \/no\/such/ });
  native().closeFd(write);
});
