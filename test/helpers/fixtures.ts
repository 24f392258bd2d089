/** Programs of test/fixtures, built for a guest: they need no library. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { repository } from "./tskata.ts";

/** Builds fixtures/<name>.c as `file`. */
export function buildFixture(name: string, file: string): void {
  const { status, stderr } = spawnSync("cc", ["-static", "-O2", "-o", file, join(repository, `test/fixtures/${name}.c`)], { encoding: "utf8" });
  if (status !== 0) throw new Error(`cc: ${stderr}`);
}
