/**
 * The annotation by which a container names volumes that are its pod's own: nobody outside of it changes them, so the guest may keep what it
 * knows of them and what is written to them, as it does with root filesystems (docs/files.md, "Volumes of the pod's own").
 */
import { posix } from "node:path";
import { TskataError } from "../base/errors.ts";
import { bindReadonly, isBind, isSlave } from "./bind.ts";
import type { Mount } from "./spec.ts";

/** Destinations with commas between them. It is no option of the configuration: each container has its own, and none must be allowed it. */
export const OWN_VOLUMES = "io.tskata.own-volumes";

/** The indices of the binds that are named. One that cannot be had is refused: whoever named it counts on it. */
export function namedAsOwn(mounts: readonly Mount[], annotations: Readonly<Record<string, string>> = {}): Set<number> {
  const value = annotations[OWN_VOLUMES];
  const named = (value?.split(",") ?? []).map((word) => word.trim());
  return new Set(named.flatMap((destination) => indicesOf(destination, mounts)));
}

function indicesOf(destination: string, mounts: readonly Mount[]): number[] {
  if (!destination.startsWith("/")) refuseOwn(destination, "is not an absolute path; expected destinations with commas between them");
  const found = mounts.flatMap((mount, index) => (isBind(mount) && plain(mount.destination) === plain(destination) ? [index] : []));
  if (found.length === 0) refuseOwn(destination, "is the destination of no bind mount of the container");
  for (const mount of found.flatMap((index) => mounts[index] ?? [])) {
    if (isSlave(mount)) refuseOwn(destination, 'is mounted "rslave": what the host mounts in it is the host\'s change');
    // The host's mount of an own volume can be written by the whole pod: a broken guest must not write what was given for reading.
    if (bindReadonly(mount) !== "no") refuseOwn(destination, "is mounted read-only: who writes it is not the pod");
  }
  return found;
}

export function refuseOwn(destination: string, why: string): never {
  throw new TskataError("invalid", `annotation ${OWN_VOLUMES}: "${destination}" ${why}`);
}

function plain(path: string): string {
  return posix.normalize(path).replace(/(?<=.)\/$/, "");
}
