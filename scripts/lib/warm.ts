/** The compile cache beside the bundles: node writes what it compiled when a command ends, and reads it when the next one starts. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { distFolder } from "./steps.ts";

/** Commands that load the modules of the short verbs. Their failure does not matter: the files are compiled. */
const WARM = [["state", "nobody"], ["--version"]];

export function warmCompileCache(): void {
  const cache = join(distFolder, "lib/cache");
  const bundle = join(distFolder, "lib/tskata.cjs");
  if (existsSync(cache) && statSync(cache).mtimeMs > statSync(bundle).mtimeMs) return;
  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache, { recursive: true, mode: 0o755 });
  for (const args of WARM) spawnSync(join(distFolder, "bin/tskata"), args, { stdio: "ignore" });
}
