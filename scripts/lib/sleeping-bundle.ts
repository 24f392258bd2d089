/** A bundle whose container sleeps: what measurements are taken of. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { busyboxRootfs } from "./busybox.ts";
import { distFolder } from "./steps.ts";

export interface SleepingSpec {
  process: { args: string[]; terminal: boolean };
  linux: { resources?: object };
}

/** Fills `folder` with busybox's root filesystem and what `tskata spec` writes, `edit`ed. */
export function sleepingBundle(folder: string, edit: (spec: SleepingSpec) => void = () => {}): void {
  mkdirSync(folder, { recursive: true });
  busyboxRootfs(join(folder, "rootfs"));
  const { status, stderr } = spawnSync(join(distFolder, "bin/tskata"), ["spec", "--bundle", folder], { encoding: "utf8" });
  if (status !== 0) throw new Error(`tskata spec: ${stderr}`);
  const file = join(folder, "config.json");
  const spec = JSON.parse(readFileSync(file, "utf8")) as SleepingSpec;
  spec.process = { ...spec.process, args: ["sleep", "100000"], terminal: false };
  edit(spec);
  writeFileSync(file, JSON.stringify(spec));
}
