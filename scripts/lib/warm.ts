/** The compile cache beside the bundles: node writes what it compiled when a command ends, and reads it when the next one starts. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { containerPaths } from "../../src/base/paths.ts";
import { type StateFile, writeState } from "../../src/oci/state-file.ts";
import { distFolder, say } from "./steps.ts";

const ID = "warm";

/** The cache keeps, of each bundle, what the first command that loads it has run: of the small one an answered `state`. */
export function warmCompileCache(): void {
  const cache = join(distFolder, "lib/cache");
  const bundle = join(distFolder, "lib/tskata.cjs");
  if (existsSync(cache) && statSync(cache).mtimeMs > statSync(bundle).mtimeMs) return;
  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache, { recursive: true, mode: 0o755 });
  const root = mkdtempSync(join(tmpdir(), "tskata-warm-"));
  try {
    const state = madeUpState(root);
    mkdirSync(state.pod.folder, { recursive: true });
    writeState(root, state);
    for (const words of [["state", ID], ["list"]]) warm(["--root", root, ...words]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function warm(words: readonly string[]): void {
  const { status, stderr } = spawnSync(join(distFolder, "bin/tskata"), words, { encoding: "utf8" });
  if (status !== 0) say(`  the compile cache is not warm, which costs time and nothing else: ${stderr.trim()}`);
}

/** A stopped container: no process is its proxy. */
function madeUpState(root: string): StateFile {
  const { folder, pod } = containerPaths(root, ID);
  const creator = { pid: process.pid, startTime: 0 };
  return {
    version: 1,
    id: ID,
    ociVersion: "1.2.0",
    bundle: folder,
    rootfs: join(folder, "rootfs"),
    annotations: { warm: "yes" },
    created: "2026-01-01T00:00:00.000000000Z",
    owner: 0,
    status: "running",
    creator,
    proxy: creator,
    pod: { id: ID, folder: pod, sandboxPid: process.pid, sandboxStartTime: 0, cgroups: [dirname(folder)] },
    cgroups: [],
    cgroupFolders: [],
    sharedTargets: [],
    terminal: false,
  };
}
