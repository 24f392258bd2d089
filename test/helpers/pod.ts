/** Containers in one pod, by the CRI's annotations: one machine for many of them. */
import type { Scratch, Spec } from "./tskata.ts";

/** Starts the pod's first container. */
export async function startPod(scratch: Scratch, id: string, edit: (spec: Spec) => void = () => {}, env: NodeJS.ProcessEnv = {}): Promise<void> {
  const more = (spec: Spec): void => {
    spec.annotations = { "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": id };
    edit(spec);
  };
  await scratch.running(id, more, env);
}

/** What makes a config join the pod; `shared` are the namespace types it takes from the first container besides the network. */
export async function joinPod(scratch: Scratch, pod: string, shared: readonly string[] = []): Promise<(spec: Spec) => void> {
  const { pid } = await scratch.state(pod);
  const files: Readonly<Record<string, string>> = { pid: "pid", ipc: "ipc", uts: "uts", network: "net" };
  return (spec) => {
    spec.annotations = { "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": pod };
    for (const namespace of spec.linux.namespaces) {
      const file = files[namespace.type];
      if (file !== undefined && (namespace.type === "network" || shared.includes(namespace.type))) namespace.path = `/proc/${pid}/ns/${file}`;
    }
    if (shared.includes("uts")) delete spec.hostname;
  };
}
