/** Native parts: cmake-js builds the addon and the small executables; they go to dist/lib and dist/bin. */
import { copyFileSync, mkdirSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildFolder, cachedStep, distFolder, hashOf, repository, run } from "./steps.ts";

/** File of the build folder to file of dist. */
const PRODUCTS = {
  "RelWithDebInfo/tskata.node": "lib/tskata.node",
  "proxy/tskata-proxy": "lib/tskata-proxy",
  "jail/tskata-jail": "lib/tskata-jail",
  "launcher/tskata-launcher": "guest/tskata-launcher",
  "cli/tskata-command": "bin/tskata",
} as const;

export async function buildNative(): Promise<void> {
  const out = join(buildFolder, "native");
  const products = Object.values(PRODUCTS).map((file) => join(distFolder, file));
  await cachedStep("native parts", hashOf("native", "package-lock.json", "scripts/lib/native.ts"), products, async () => {
    const cmakeJs = join(repository, "node_modules/cmake-js/bin/cmake-js");
    await run("native", process.execPath, [
      cmakeJs,
      "build",
      "--directory",
      "native",
      "--out",
      out,
      "--generator",
      "Ninja",
      "--config",
      "RelWithDebInfo",
      "--parallel",
      "2",
    ]);
    for (const [from, to] of Object.entries(PRODUCTS)) install(join(out, from), join(distFolder, to));
  });
}

/** Renamed into place: a running process keeps the file it has mapped. */
export function install(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, `${to}.new`);
  renameSync(`${to}.new`, to);
}
