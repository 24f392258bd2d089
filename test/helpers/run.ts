/** Programs of the host's that must succeed. */
import { spawnSync } from "node:child_process";

/** What it prints on stdout. */
export function run(command: string, args: string[], cwd?: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(" ")}: exit ${status}\n${stderr?.slice(-3000) ?? error}`);
}
