/** What a bind mount of config.json asks for (config.md "Linux mount options"). */
import { isAbsolute, join } from "node:path";
import type { Mount } from "./spec.ts";

export function isBind(mount: Mount): boolean {
  return mount.type === "bind" || (mount.options ?? []).some((option) => option === "bind" || option === "rbind");
}

/** A relative source is below the bundle. */
export function bindSource(mount: Mount, bundleFolder: string): string {
  const named = mount.source ?? "";
  return isAbsolute(named) ? named : join(bundleFolder, named);
}

/** "top": of this mount alone, with the mounts below it as they are. */
export function bindReadonly({ options = [] }: Mount): "no" | "top" | "all" {
  if (options.includes("rro")) return "all";
  return options.lastIndexOf("ro") > options.lastIndexOf("rw") ? "top" : "no";
}

/** The last one given: "private", "rslave" and so on. */
export function bindPropagation({ options = [] }: Mount): string | undefined {
  return options.findLast((option) => /^r?(private|slave|shared|unbindable)$/.test(option));
}

export function isSlave(mount: Mount): boolean {
  return /^r?slave$/.test(bindPropagation(mount) ?? "");
}
