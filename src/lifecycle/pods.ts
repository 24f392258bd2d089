/** Which containers belong to which pod, read from the state files below --root. */
import { readdirSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { isAlive, type ProcessRef } from "../base/process.ts";
import type { JoinedNamespace } from "../oci/pod.ts";
import { readState, type StateFile, statusOf } from "../oci/state-file.ts";

/** Names below --root that can be containers. */
export function containerIds(root: string): string[] {
  try {
    return readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Every container whose state can be read; `onError` hears of the others. */
export function readStates(root: string, onError: (id: string, error: unknown) => void = () => {}): StateFile[] {
  return containerIds(root).flatMap((id) => {
    try {
      return [readState(root, id)];
    } catch (error) {
      if (!(error instanceof TskataError && error.code === "not-found")) onError(id, error);
      return [];
    }
  });
}

/** The containers of the pod in `folder`. */
export function podMembers(root: string, folder: string): StateFile[] {
  return readStates(root).filter((state) => state.pod.folder === folder);
}

export function sandboxRef(state: StateFile): ProcessRef | undefined {
  const { sandboxPid, sandboxStartTime } = state.pod;
  return sandboxPid === undefined || sandboxStartTime === undefined ? undefined : { pid: sandboxPid, startTime: sandboxStartTime };
}

/**
 * The container that a joining one names as its pod's: by id (CRI, CRI-O), or by the pod id that the sandbox container
 * carries in its own annotations (podman).
 */
export function findPodOwner(root: string, podId: string): StateFile {
  const states = readStates(root);
  const owner =
    states.find((state) => state.id === podId) ??
    states.find((state) => state.pod.id === state.id && state.annotations["io.kubernetes.cri-o.SandboxID"] === podId);
  if (owner === undefined) throw new TskataError("not-found", `the pod's sandbox container ${podId} does not exist`);
  if (!isAlive(sandboxRef(owner))) throw new TskataError("unavailable", `the pod ${podId} has no running virtual machine`);
  return owner;
}

/**
 * A container of the pod that a config joins by the namespaces it names; undefined when none of them is a running container's. An engine's pids
 * are those of the processes that stand for containers.
 */
export function findPodByNamespaces(root: string, joined: readonly JoinedNamespace[]): StateFile | undefined {
  if (joined.length === 0) return undefined;
  const states = readStates(root);
  const found = joined.flatMap(({ type, pid }) => {
    const state = states.find(({ proxy }) => proxy?.pid === pid);
    return state === undefined || statusOf(state) === "stopped" ? [] : [{ type, state }];
  });
  const [first] = found;
  const other = found.find(({ state }) => state.pod.folder !== first?.state.pod.folder);
  if (first === undefined || other === undefined) return first?.state;
  throw new TskataError(
    "unsupported",
    `joining the ${first.type} namespace of ${first.state.id} and the ${other.type} namespace of ${other.state.id} is not supported: they run in two virtual machines`,
  );
}

/** The container of this pod whose init the host knows as `proxyPid`. */
export function findByProxy(root: string, podFolder: string, proxyPid: number): string | undefined {
  return podMembers(root, podFolder).find((state) => state.proxy?.pid === proxyPid && statusOf(state) !== "stopped")?.id;
}
