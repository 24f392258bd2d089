/**
 * `npm test`: the set-up, then lint, types, unit tests, device tests, VM tests. `npm test -- unit` (or lint, types, device,
 * vm) does one of them; further words go to ava.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { pinnedNode, repository, step } from "./lib/steps.ts";
import { setup } from "./setup.ts";

const modules = join(repository, "node_modules");

function run(program: string, args: readonly string[]): void {
  const { status, signal, error } = spawnSync(program, args, {
    cwd: repository,
    stdio: "inherit",
    env: { ...process.env, NODE_OPTIONS: "--disable-warning=ExperimentalWarning" },
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${args.slice(0, 3).join(" ")}: ${signal ?? `exit ${status}`}`);
}

function node(script: string, args: readonly string[]): void {
  run(pinnedNode, [join(modules, script), ...args]);
}

function ava(folder: string, args: readonly string[]): void {
  node("ava/entrypoints/cli.mjs", [`test/${folder}/**/*.test.ts`, ...args]);
}

const CPP = "native/**/*.{h,cpp}";

const STAGES: Readonly<Record<string, (args: readonly string[]) => void>> = {
  lint: () => {
    node("@biomejs/biome/bin/biome", ["ci", "--error-on-warnings", "."]);
    run("clang-format-14", ["--dry-run", "--Werror", ...globSync(CPP, { cwd: repository })]);
    run(pinnedNode, [join(repository, "scripts/imports.ts")]);
    run(pinnedNode, [join(repository, "scripts/protos.ts"), "--check"]);
  },
  types: () => node("typescript/bin/tsc", ["--noEmit", "-p", "."]),
  unit: (args) => ava("unit", args),
  device: (args) => ava("device", args),
  // One file at a time: two cores boot one emulated machine at a time well.
  vm: (args) => ava("vm", ["--serial", "--concurrency", "1", ...args]),
};

await setup();
const [only, ...args] = process.argv.slice(2);
if (only !== undefined && STAGES[only] === undefined) throw new Error(`there is no stage "${only}": ${Object.keys(STAGES).join(", ")}`);
for (const [name, stage] of Object.entries(STAGES)) {
  if (only === undefined || only === name) await step(name, async () => stage(only === undefined ? [] : args));
}
