/** What the benches share: a program that must succeed, and what they tell. */
import { spawnSync } from "node:child_process";

/** The program's output. */
export function must(program: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
