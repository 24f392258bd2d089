/**
 * The crash matrix (docs/reliability.md): each process of a pod is killed at every named span of the verbs, the host's resources end, it is
 * rebooted, callers race, clocks jump. After each cell one `delete --force` or `gc`, and the host must be as before.
 *
 *   npm run matrix [-- --list] [--only TEXT]… [--from N] [--to N] [--jobs 1]
 *
 * --only takes cells whose name has every TEXT; --from and --to count the cells that are left, from 1. With --jobs several run at a time.
 */
import { spawn } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildFolder, distFolder, repository, run, say } from "./lib/steps.ts";
import { setup } from "./setup.ts";

const { values } = parseArgs({
  options: {
    list: { type: "boolean", default: false },
    only: { type: "string", multiple: true, default: [] },
    from: { type: "string", default: "1" },
    to: { type: "string", default: "100000" },
    jobs: { type: "string", default: "1" },
    /** Of a process that this one has started: "1/2". */
    part: { type: "string" },
  },
});

interface Tally {
  passed: number;
  failed: number;
}

async function chosen(): Promise<{ index: number; name: string }[]> {
  const { allCells } = await import("../test/helpers/matrix/cells.ts");
  return allCells()
    .map(({ name }, index) => ({ index, name }))
    .filter(({ name }) => values.only.every((text) => name.includes(text)))
    .slice(Number(values.from) - 1, Number(values.to));
}

/** One process does its part of the cells, in a scratch of its own. */
async function runPart(part: string): Promise<Tally> {
  const [{ runCell }, { allCells }, { Scratch }] = await Promise.all([
    import("../test/helpers/matrix/cell.ts"),
    import("../test/helpers/matrix/cells.ts"),
    import("../test/helpers/tskata.ts"),
  ]);
  const [mine = 1, of = 1] = part.split("/").map(Number);
  const cells = allCells();
  const scratch = new Scratch(`matrix-${mine}`);
  const tally: Tally = { passed: 0, failed: 0 };
  try {
    for (const [position, { index, name }] of (await chosen()).entries()) {
      const cell = cells[index];
      if (cell === undefined || position % of !== mine - 1) continue;
      const start = performance.now();
      const problems = await runCell(scratch, cell, `cell-${index}`);
      say(`${problems.length === 0 ? "ok  " : "FAIL"} ${position + Number(values.from)} ${name} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
      for (const problem of problems) say(`       ${problem.replaceAll("\n", "\n       ")}`);
      tally[problems.length === 0 ? "passed" : "failed"]++;
    }
  } finally {
    await scratch.cleanUp();
  }
  return tally;
}

/** Each has a copy of the product: what runs is told apart, and a build meanwhile changes nothing. */
async function runParts(jobs: number): Promise<Tally> {
  const parts = Array.from({ length: jobs }, async (_, index) => {
    const dist = join(buildFolder, "matrix", `dist-${index + 1}`);
    rmSync(dist, { recursive: true, force: true });
    mkdirSync(join(buildFolder, "matrix"), { recursive: true });
    await run("matrix", "cp", ["-a", distFolder, dist]);
    const args = [...process.execArgv, import.meta.filename, ...process.argv.slice(2), "--part", `${index + 1}/${jobs}`];
    const child = spawn(process.execPath, args, {
      cwd: repository,
      env: { ...process.env, TSKATA_BIN: join(dist, "bin/tskata") },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (bytes) => (out += String(bytes)));
    await new Promise((done) => child.once("close", done));
    rmSync(dist, { recursive: true, force: true });
    return JSON.parse(out) as Tally;
  });
  const tallies = await Promise.all(parts);
  return { passed: sum(tallies, "passed"), failed: sum(tallies, "failed") };
}

function sum(tallies: readonly Tally[], key: keyof Tally): number {
  return tallies.reduce((total, tally) => total + tally[key], 0);
}

if (values.part !== undefined) {
  process.stdout.write(JSON.stringify(await runPart(values.part)));
} else {
  await setup();
  if (values.list) {
    for (const [position, { name }] of (await chosen()).entries()) process.stdout.write(`${position + Number(values.from)} ${name}\n`);
  } else {
    const { passed, failed } = await runParts(Number(values.jobs));
    process.stdout.write(`matrix: ${passed} of ${passed + failed}\n`);
    if (failed > 0 || passed === 0) process.exitCode = 1;
  }
}
