/** linux.sysctl: the names that belong to a namespace of the container, refused otherwise in runc's words, and their files below /proc/sys. */
import { TskataError } from "../base/errors.ts";
import type { Linux, NamespaceType } from "./spec.ts";

/** Those of ipc_namespaces(7) that are not below fs/mqueue. */
const IPC = new Set(["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"].map((name) => `kernel/${name}`));

/** "net.ipv4.ip_forward" or "net/ipv4/conf/eth0.1/forwarding": the first separator met is the one in use (sysctl.d(5)). */
export function sysctlPath(name: string): string {
  const path = hasSlashes(name) ? name : swapped(name);
  if (path.split("/").some((part) => part === "" || part === "." || part === "..")) throw new TskataError("invalid", `linux.sysctl: invalid name "${name}"`);
  return path;
}

/**
 * What has no namespace is the kernel's, for all containers of the pod. A namespace that is joined will do, as for runc. Those of the network
 * need no look: without a network namespace there is no container.
 */
export function checkSysctls(linux: Linux): void {
  const has = (type: NamespaceType): boolean => linux.namespaces?.some((namespace) => namespace.type === type) ?? false;
  for (const name of Object.keys(linux.sysctl ?? {})) {
    const why = refusal(sysctlPath(name), has);
    if (why !== undefined) throw new TskataError("invalid", `sysctl "${hasSlashes(name) ? swapped(name) : name}" ${why}`);
  }
}

function refusal(path: string, has: (type: NamespaceType) => boolean): string | undefined {
  if (path.startsWith("net/")) return undefined;
  if (IPC.has(path) || path.startsWith("fs/mqueue/")) return has("ipc") ? undefined : "is not allowed in the hosts ipc namespace";
  if (path === "kernel/domainname" && has("uts")) return undefined;
  if (path === "kernel/hostname" && has("uts")) return 'is not allowed as it conflicts with the OCI "hostname" field';
  return "is not in a separate kernel namespace";
}

function hasSlashes(name: string): boolean {
  return /^[^./]*\//.test(name);
}

function swapped(name: string): string {
  return name.replaceAll(/[./]/g, (separator) => (separator === "." ? "/" : "."));
}
