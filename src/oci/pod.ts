/** Which pod a container belongs to, by the annotations its engine gives: containerd's CRI plugin, CRI-O, podman. */

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
