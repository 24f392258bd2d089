/** `npm run test:long`: what takes too long for every test run, one stage after the other; `npm run test:long -- NAME` does one of them. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { AVA, NODE_OPTIONS, ONE_BY_ONE } from "./lib/ava.ts";
import { pinnedNode, repository, step } from "./lib/steps.ts";
import { setup } from "./setup.ts";

interface Stage {
  readonly script: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const vmTest = (name: string, env: Readonly<Record<string, string>>): Stage => ({
  script: AVA,
  args: [`test/vm/${name}.test.ts`, ...ONE_BY_ONE],
  env: { TSKATA_TEST_FULL: "1", ...env },
});

/** In the order of their time: hours, but for the files'. */
const STAGES: Readonly<Record<string, Stage>> = {
  nodes: { script: AVA, args: ["test/device/devices.test.ts", ...ONE_BY_ONE, "--match", "fs: more nodes than descriptors"], env: { TSKATA_TEST_FULL: "1" } },
  files: vmTest("files", {}),
  streams: vmTest("streams", { TSKATA_STREAM_TURNS: "100" }),
  matrix: { script: join(repository, "scripts/matrix.ts"), args: [] },
  fuzz: { script: join(repository, "scripts/fuzz.ts"), args: ["--seconds", "3600"] },
};

const [only, ...args] = process.argv.slice(2);
if (only !== undefined && STAGES[only] === undefined) throw new Error(`there is no stage "${only}": ${Object.keys(STAGES).join(", ")}`);

await setup();
for (const [name, { script, args: own, env }] of Object.entries(STAGES)) {
  if (only !== undefined && only !== name) continue;
  await step(name, async () => {
    const options = { cwd: repository, stdio: "inherit", env: { ...process.env, NODE_OPTIONS, ...env } } as const;
    const { status, signal, error } = spawnSync(pinnedNode, [script, ...own, ...args], options);
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(`${name}: ${signal ?? `exit ${status}`}`);
  });
}
