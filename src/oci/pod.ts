/**
 * Which pod a container belongs to: by the annotations its engine gives (containerd's CRI plugin, CRI-O, podman), or by the namespaces it joins
 * (`docker run --pid container:X`).
 */
import type { Linux, NamespaceType } from "./spec.ts";

export type PodRole =
  /** Starts a virtual machine of its own. */
  | { readonly kind: "owner" }
  /** Joins the machine of the container with this id. */
  | { readonly kind: "member"; readonly podId: string };

/** Annotation of the container's kind and of the sandbox container's id, an engine a line. */
const ENGINES = [
  { type: "io.kubernetes.cri.container-type", id: "io.kubernetes.cri.sandbox-id" },
  { type: "io.kubernetes.cri-o.ContainerType", id: "io.kubernetes.cri-o.SandboxID" },
] as const;

export function podRole(containerId: string, annotations: Readonly<Record<string, string>> = {}): PodRole {
  for (const { type, id } of ENGINES) {
    const podId = annotations[id];
    if (annotations[type] === "container" && podId !== undefined && podId !== containerId) return { kind: "member", podId };
  }
  return { kind: "owner" };
}

export interface JoinedNamespace {
  readonly type: NamespaceType;
  /** Of the process whose namespace it is. */
  readonly pid: number;
}

/** Names below /proc/PID/ns of what containers of a pod can share. */
const SHAREABLE: Readonly<Partial<Record<NamespaceType, string>>> = { pid: "pid", ipc: "ipc", uts: "uts", network: "net" };

/** The namespaces that a config joins by the pid of a process. */
export function joinedNamespaces(linux: Linux): JoinedNamespace[] {
  return (linux.namespaces ?? []).flatMap(({ type, path }) => {
    const pid = pidOfNamespace(type, path);
    return pid === undefined ? [] : [{ type, pid }];
  });
}

/** The pid in /proc/PID/ns/TYPE, where a container's namespace of that type can be shared. */
export function pidOfNamespace(type: NamespaceType, path: string | undefined): number | undefined {
  const [, pid, file] = /^\/proc\/(\d+)\/ns\/(\w+)$/.exec(path ?? "") ?? [];
  return pid !== undefined && file === SHAREABLE[type] ? Number(pid) : undefined;
}
