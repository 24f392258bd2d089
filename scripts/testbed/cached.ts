/** What the testbed keeps in the cache, a folder for each version. */
import { existsSync, readdirSync } from "node:fs";
import { cacheFolder } from "../lib/steps.ts";

/** The name of the newest, by the version in it. */
export function newestCached(pattern: RegExp): string | undefined {
  if (!existsSync(cacheFolder)) return undefined;
  return readdirSync(cacheFolder)
    .filter((name) => pattern.test(name))
    .sort((one, other) => one.localeCompare(other, "en", { numeric: true }))
    .at(-1);
}
