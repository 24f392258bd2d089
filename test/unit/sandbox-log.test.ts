/** src/sandbox/log.ts: a disk without room costs lines, never the process that writes them. */
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { repository, runProgram, temporaryFolder } from "./helpers.ts";

test("a log on a full disk throws at nobody, however much is written", async (t) => {
  const folder = temporaryFolder(t);
  symlinkSync("/dev/full", join(folder, "sandbox.log"));
  const script = `const { openLog } = await import(${JSON.stringify(join(repository, "src/sandbox/log.ts"))});
    const log = openLog("info");
    for (let line = 0; line < 10_000; line++) log.info({ line }, "x".repeat(100));
    console.log("alive");
    process.exit(0);`;
  const { stdout, stderr } = await runProgram(process.execPath, ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", script], {
    cwd: folder,
  });
  t.deepEqual([stdout, stderr], ["alive\n", ""]);
});
