/** `npm run test:long`: what takes too long for every test run, one stage after the other; `npm run test:long -- NAME` does one of them. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pinnedNode, repository, step } from "./lib/steps.ts";

const STAGES: Readonly<Record<string, readonly string[]>> = {
  matrix: ["scripts/matrix.ts"],
};

const [only, ...args] = process.argv.slice(2);
if (only !== undefined && STAGES[only] === undefined) throw new Error(`there is no stage "${only}": ${Object.keys(STAGES).join(", ")}`);

for (const [name, [script = "", ...own]] of Object.entries(STAGES)) {
  if (only !== undefined && only !== name) continue;
  await step(name, async () => {
    const words = ["--disable-warning=ExperimentalWarning", join(repository, script), ...own, ...args];
    const { status, signal, error } = spawnSync(pinnedNode, words, { cwd: repository, stdio: "inherit" });
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(`${name}: ${signal ?? `exit ${status}`}`);
  });
}
