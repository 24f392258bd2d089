/** Who a fault point's victims are on the host: the processes of a container's pod, as its state and /proc have them. */
import { readFileSync } from "node:fs";
import { containerPaths } from "../base/paths.ts";
import { allPids, processFacts } from "../base/process.ts";
import { readState, type StateFile } from "../oci/state-file.ts";
import { aimFault } from "../telemetry/fault.ts";

/** What tskata-jail calls the keeper of the file server's handles (native/jail/policies.cpp). */
const KEEPER = "handles";

export function aimFaultAt(root: string, id: string, podFolder: string = containerPaths(root, id).pod): void {
  aimFault(podFolder, (victim) => {
    const state = stateOrUndefined(root, id);
    if (victim === "sandbox") return state?.pod.sandboxPid;
    // The proxy that is a child of ours is an exec's, or a container's init's during its create.
    if (victim === "proxy") return childrenOf(process.pid).find((pid) => nameOf(pid) === "tskata-proxy") ?? state?.proxy?.pid;
    const children = state?.pod.sandboxPid === undefined ? [] : childrenOf(state.pod.sandboxPid);
    return children.find((pid) => (nameOf(pid) === KEEPER) === (victim === "keeper"));
  });
}

function stateOrUndefined(root: string, id: string): StateFile | undefined {
  try {
    return readState(root, id);
  } catch {
    return undefined;
  }
}

function childrenOf(parent: number): number[] {
  return allPids().filter((pid) => processFacts(pid)?.parent === parent);
}

function nameOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return undefined; // gone meanwhile
  }
}
