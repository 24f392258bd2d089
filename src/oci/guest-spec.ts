/**
 * From the caller's config.json to the one the guest's agent gets, and what of the host must be placed in the pod's
 * shared tree for it.
 *
 *   host                          shared tree (host and guest)            container
 *   <bundle>/rootfs        ──►    cached/<id>/rootfs               ──►    /
 *   the pod's own volume   ──►    cached/<pod>/own/<name>          ──►    its destination, and that of each container that has it
 *   source of bind mount n ──►    live/<id>/mounts/<n>             ──►    its destination
 *
 * Each of the two folders is a file server's. Of `cached` the guest keeps for a while what it writes; without writeback what would be there is in `live`,
 * too, and its names and attributes are still kept. An own volume stays until the pod ends: its mount goes with the sandbox process's mount namespace.
 * The guest sees the shared tree at /run/tskata/shared. Hooks that run on the host are taken out; namespaces given as
 * paths of this host become "shared with container C of the pod", or go: the pod's network is the guest's own.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { TskataError } from "../base/errors.ts";
import { CACHED, GUEST_SHARED, LIVE } from "../base/shared-tree.ts";
import { bindPropagation, bindReadonly, bindSource, isBind, isSlave } from "./bind.ts";
import { type Bundle, HOST_NETWORK } from "./bundle.ts";
import { pidOfNamespace } from "./pod.ts";
import type { Mount, Namespace, Spec } from "./spec.ts";

/** A host tree to be cloned to `target`, relative to the shared tree. */
export interface Placement {
  readonly source: string;
  readonly target: string;
  readonly kind: "directory" | "file";
  readonly recursive: boolean;
  /** Enforced on the host as well: a broken guest must not write what was given for reading. */
  readonly readonly: "no" | "top" | "all";
  /** Whether mounts that the host makes below the source later appear in the tree; none of the tree's ever appears on the host. */
  readonly propagation: "private" | "slave";
}

/** A volume of the pod's own that a bind shows (src/host/own-volumes.ts). */
export interface OwnVolume {
  /** Among the pod's. */
  readonly name: string;
  /** The host's folder; none where the pod has it already. */
  readonly source: string | undefined;
  /** Where in it the bind's source is; "" for all of it. */
  readonly below: string;
}

export interface GuestSpec {
  readonly spec: Spec;
  readonly placements: readonly Placement[];
  /** Of the pod's own volumes: where there is something, it is that. */
  readonly podPlacements: readonly Placement[];
  /** Namespace type to the container of the pod whose namespace is joined. */
  readonly sharedNamespaces: Readonly<Record<string, string>>;
}

/** Finds the container of the pod whose proxy has this pid. */
export type PodLookup = (proxyPid: number) => string | undefined;

/** The pod that the container goes to. */
export interface GuestPod {
  readonly id: string;
  /** As it was started with. */
  readonly writeback: boolean;
  readonly containerOf: PodLookup;
}

export function guestSpec(id: string, bundle: Bundle, pod: GuestPod, own: ReadonlyMap<number, OwnVolume>): GuestSpec {
  const { spec, linux } = bundle;
  const kept = pod.writeback ? CACHED : LIVE;
  const rootfs = `${kept}/${id}/rootfs`;
  const placements: Placement[] = [{ ...UNCHANGED, source: bundle.rootfs, target: rootfs, recursive: true }];
  const podPlacements = new Map<string, Placement>();
  const mounts = (spec.mounts ?? []).map((mount, index) => {
    if (!isBind(mount)) {
      refuseHostSource(mount);
      return mount;
    }
    refuseShared(mount, index);
    const volume = own.get(index);
    if (volume === undefined) {
      const placement = bindPlacement(mount, `${LIVE}/${id}/mounts/${index}`, bundle.folder);
      placements.push(placement);
      return { ...mount, source: `${GUEST_SHARED}/${placement.target}` };
    }
    const target = `${kept}/${pod.id}/own/${volume.name}`;
    if (volume.source !== undefined) podPlacements.set(target, { ...UNCHANGED, source: volume.source, target, recursive: false });
    return { ...mount, source: join(GUEST_SHARED, target, volume.below) };
  });
  const { namespaces, shared } = guestNamespaces(linux.namespaces ?? [], pod.containerOf);
  const { startContainer } = spec.hooks ?? {};
  return {
    spec: {
      ...spec,
      root: { ...spec.root, path: `${GUEST_SHARED}/${rootfs}` },
      mounts,
      hooks: startContainer === undefined ? undefined : { startContainer },
      linux: { ...linux, namespaces },
    },
    placements,
    podPlacements: [...podPlacements.values()],
    sharedNamespaces: shared,
  };
}

// -- mounts ------------------------------------------------------------------------------------------------------------

const UNCHANGED = { kind: "directory", readonly: "no", propagation: "private" } as const;

function bindPlacement(mount: Mount, target: string, bundleFolder: string): Placement {
  const source = bindSource(mount, bundleFolder);
  return {
    source,
    target,
    kind: sourceKind(source, mount.destination),
    recursive: mount.options?.includes("rbind") ?? false,
    readonly: bindReadonly(mount),
    propagation: isSlave(mount) ? "slave" : "private",
  };
}

/** What a container mounts is mounted in the guest's kernel alone: it cannot appear below a folder of the host. */
function refuseShared(mount: Mount, index: number): void {
  const option = bindPropagation(mount);
  if (option !== "shared" && option !== "rshared") return;
  throw new TskataError(
    "unsupported",
    `mounts[${index}].options: "${option}" of "${mount.destination}" is not supported: what the container mounts there is in its virtual machine and cannot appear on the host; "rslave" lets the host's mounts appear in the container`,
  );
}

function sourceKind(source: string, destination: string): Placement["kind"] {
  try {
    return statSync(source).isDirectory() ? "directory" : "file";
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new TskataError(
      "not-found",
      `error mounting "${source}" to rootfs at "${destination}": stat ${source}: ${code === "ENOENT" ? "no such file or directory" : code}`,
    );
  }
}

/** A filesystem the guest would mount by itself from a device or folders that only this host has. */
function refuseHostSource(mount: Mount): void {
  const refuse = (why: string): never => {
    throw new TskataError("unsupported", `mount of type "${mount.type ?? ""}" at "${mount.destination}" is not supported: ${why}`);
  };
  if (mount.type === "overlay") refuse("its folders are the host's; mount it on the host and bind it");
  if (mount.source?.startsWith("/") !== true) return;
  let isDevice = false;
  try {
    isDevice = statSync(mount.source).isBlockDevice();
  } catch {
    return; // no such thing on this host: a name for the guest, which says so itself when it is none there either
  }
  if (isDevice) refuse("its source is a block device of the host; mount it on the host and bind it");
}

// -- namespaces ----------------------------------------------------------------------------------------------------------

interface GuestNamespaces {
  readonly namespaces: Namespace[];
  readonly shared: Record<string, string>;
}

function guestNamespaces(namespaces: readonly Namespace[], findInPod: PodLookup): GuestNamespaces {
  const kept: Namespace[] = [];
  const shared: Record<string, string> = {};
  for (const { path, ...namespace } of namespaces) {
    const joined = path !== undefined && path !== "";
    if (namespace.type === "network") {
      if (joined) checkNetwork(path, findInPod);
      continue;
    }
    kept.push(namespace);
    if (joined) shared[namespace.type] = ownerOf(namespace.type, path, findInPod);
  }
  return { namespaces: kept, shared };
}

/** Docker gives the host's network by a name for it; what engines make for a pod is another. */
function checkNetwork(path: string, findInPod: PodLookup): void {
  const pid = pidOfNamespace("network", path);
  if (pid !== undefined && findInPod(pid) !== undefined) return;
  if (inode(path) === inode("/proc/self/ns/net")) throw new TskataError("unsupported", HOST_NETWORK);
}

function inode(path: string): number {
  try {
    return statSync(path).ino;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new TskataError("not-found", `invalid netns path: stat ${path}: ${code === "ENOENT" ? "no such file or directory" : code}`);
  }
}

function ownerOf(type: Namespace["type"], path: string, findInPod: PodLookup): string {
  if (!["pid", "ipc", "uts"].includes(type)) throw new TskataError("unsupported", `joining the ${type} namespace ${path} is not supported`);
  const pid = pidOfNamespace(type, path);
  const owner = pid === undefined ? undefined : findInPod(pid);
  if (owner !== undefined) return owner;
  throw new TskataError("unsupported", `joining the ${type} namespace ${path} is not supported: it is not of a container in the same pod`);
}
