/** The sources of a container's binds, before its launcher takes them. */
import { lstatSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import { GUEST_SHARED } from "../../src/base/shared-tree.ts";
import type { Mount } from "../../src/oci/spec.ts";

/** Longer than the kernel keeps that there is no such name (native/devices/fs/server_nodes.cpp, valid_seconds). */
const KEPT_MS = 6000;
const POLL_MS = 100;

/** A folder of a volume that is the pod's own: <file server>/<container>/own/<name>/<folder>. */
const WITHIN_OWN = new RegExp(`^${GUEST_SHARED}/[^/]+/[^/]+/own/[^/]+/.`);

/**
 * Waits for folders of the pod's own volumes that the host has made just now, as kubelet does for a `subPath`: a container that had looked for such a
 * one before has left the kernel believing that there is none. One that does not come is the launcher's to tell of.
 */
export async function sourcesKnown(mounts: readonly Mount[]): Promise<void> {
  for (const { source = "" } of mounts) {
    if (!WITHIN_OWN.test(source)) continue;
    for (const end = performance.now() + KEPT_MS; !isThere(source) && performance.now() < end; ) await after(POLL_MS);
  }
}

function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false; // a part of it is no folder
  }
}
