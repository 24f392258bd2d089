/** Puts host trees into the pod's shared tree: detached clones, moved into the sandbox process's own mount namespace. */
import { TskataError } from "../base/errors.ts";
import { native } from "../native.ts";
import type { Placement } from "../oci/guest-spec.ts";

/** Clones each source and moves it to its target in the mount namespace of `pid`; `undo` learns how to take them out. */
export async function placeTrees(placements: readonly Placement[], pid: number, sharedFolder: string, undo: AsyncDisposableStack): Promise<void> {
  for (const placement of placements) {
    await placeTree(placement, pid, sharedFolder, "always");
    undo.defer(async () => await removeTree(pid, sharedFolder, placement.target).catch(() => {}));
  }
}

/**
 * The same for trees that are all of the pod's: what is there already is left, and none is taken out before the pod ends. Two at a time must not: of
 * two mounts at one place the guest would see one here and the other there.
 */
export async function placePodTrees(placements: readonly Placement[], pid: number, sharedFolder: string): Promise<void> {
  for (const placement of placements) await placeTree(placement, pid, sharedFolder, "if-empty");
}

async function placeTree(placement: Placement, pid: number, sharedFolder: string, when: "always" | "if-empty"): Promise<void> {
  const { source, target, kind, recursive, readonly, propagation } = placement;
  try {
    const tree = native().openTree(source, recursive);
    try {
      // Devices and set-uid programs of the tree mean something in the guest only; there its own mounts say what holds.
      // A clone of a shared mount is its peer: left so, mounts of the host would come in unasked, and taking the tree out would unmount the host's.
      native().setTreeAttributes(tree, { readonly: readonly === "all", nodev: true, nosuid: true, recursive: true, propagation });
      if (readonly === "top") native().setTreeAttributes(tree, { readonly: true, nodev: false, nosuid: false, recursive: false });
      await native().placeTree(tree, pid, sharedFolder, target, kind, when);
    } finally {
      native().closeFd(tree);
    }
  } catch (error) {
    throw new TskataError("unavailable", `give "${source}" to the virtual machine`, { cause: error });
  }
}

/** Takes one out again; a sandbox that is gone took everything with it. */
export async function removeTree(pid: number, sharedFolder: string, target: string): Promise<void> {
  await native().removeTree(pid, sharedFolder, target);
}
