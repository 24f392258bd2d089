/**
 * Imports go down only (docs/architecture.md). These rules are the proof that the privileged side parses no guest byte:
 * every relative import of src and agent, type-only ones included, is held against them.
 */
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { repository, say } from "./lib/steps.ts";

interface Rule {
  readonly from: RegExp;
  readonly to: RegExp;
  readonly why: string;
}

const RULES: readonly Rule[] = [
  {
    from: /^src\/(cli|lifecycle|shim)\//,
    to: /^(src\/(sandbox|vmm|hypervisor|agent-client)|agent)\//,
    why: "the command line and the shim never parse guest bytes",
  },
  { from: /^src\/control\//, to: /^(src\/(cli|lifecycle|shim|sandbox|vmm|hypervisor|agent-client)|agent)\//, why: "both sides use the control API" },
  { from: /^src\/sandbox\//, to: /^(src\/(cli|lifecycle|shim)|agent)\//, why: "the sandbox process is below the command line" },
  { from: /^src\/hypervisor\//, to: /^(src\/(cli|lifecycle|shim|sandbox|agent-client|control)|agent)\//, why: "drivers know machines, not pods" },
  { from: /^src\/vmm\//, to: /^(src\/(?!vmm\/|base\/|telemetry\/|native\.ts)|agent)/, why: "the machine knows the addon and nothing above it" },
  {
    from: /^src\/host\//,
    to: /^src\/(hypervisor\/|vmm\/(?!arch\/|capabilities\.ts|endings\.ts))/,
    why: "the probe makes a guest of its own and runs no one else's",
  },
  { from: /^agent\//, to: /^src\/(?!oci\/|protocols\/|base\/|telemetry\/|native\.ts)/, why: "the agent is another machine's program" },
  { from: /^src\//, to: /^agent\//, why: "the agent is another machine's program" },
  { from: /^src\/oci\//, to: /^src\/(?!oci\/|base\/|telemetry\/)/, why: "schemas and files of the specification import nothing above them" },
  { from: /^src\/base\//, to: /^(src\/(?!base\/)|agent\/)/, why: "base imports nothing" },
  { from: /^src\/telemetry\//, to: /^(src\/(?!base\/|telemetry\/)|agent\/)/, why: "everything may use telemetry" },
];

/** Relative paths that a file imports, as paths of the repository. */
export function importsOf(file: string, text: string): string[] {
  const specifiers = text.matchAll(/(?:\bfrom|\bimport\(?)\s*"(\.{1,2}\/[^"]+)"/g);
  return [...specifiers].map((match) => normalize(join(dirname(file), match[1] ?? "")));
}

/** Each broken rule in words. */
export function violations(file: string, imports: readonly string[]): string[] {
  return imports.flatMap((target) => RULES.filter(({ from, to }) => from.test(file) && to.test(target)).map(({ why }) => `${file} imports ${target}: ${why}`));
}

function main(): void {
  const files = globSync(["src/**/*.ts", "agent/**/*.ts"], { cwd: repository });
  const found = files.flatMap((file) => violations(file, importsOf(file, readFileSync(join(repository, file), "utf8"))));
  for (const line of found) say(line);
  if (found.length > 0) process.exitCode = 1;
  else say(`imports of ${files.length} files go down only`);
}

if (process.argv[1]?.endsWith("imports.ts") === true) main();
