/**
 * How big a pod's virtual machine is, from the limits of the container that starts it.
 *
 * vCPUs: ceil(quota / period), or `default_vcpus` without a quota; plus `base_vcpus`; at most `max_vcpus` and the host's CPUs.
 * Memory: the limit, or `default_memory_mib` without one; plus `base_memory_mib` for guest kernel and agent; at most
 * `max_memory_mib` (0: the host's memory). The guest's cgroups still hold each container to its own limits; memory that no
 * one touches costs the host nothing, so a generous default is cheap.
 * A Kubernetes pod tells the sum of its containers' limits with annotations on its sandbox container.
 */
import { availableParallelism, totalmem } from "node:os";
import type { Resources } from "../oci/spec.ts";
import type { Config } from "./config.ts";

const MIB = 1024 * 1024;
/** runc's and the kernel's "no limit" are anything this large. */
const UNLIMITED = 2 ** 62;
/** v1 and v2 take a period of 100 ms when a quota comes without one. */
const DEFAULT_PERIOD_US = 100_000;

export interface Size {
  readonly vcpus: number;
  readonly memoryMib: number;
}

export interface HostSize {
  readonly cpus: number;
  readonly memoryMib: number;
}

export function hostSize(): HostSize {
  return { cpus: availableParallelism(), memoryMib: Math.floor(totalmem() / MIB) };
}

export function podSize(
  guest: Config["guest"],
  resources: Resources | undefined,
  annotations: Readonly<Record<string, string>> = {},
  host: HostSize = hostSize(),
): Size {
  const quota = number(annotations["io.kubernetes.cri.sandbox-cpu-quota"]) ?? resources?.cpu?.quota;
  const period = number(annotations["io.kubernetes.cri.sandbox-cpu-period"]) ?? resources?.cpu?.period;
  const memory = number(annotations["io.kubernetes.cri.sandbox-memory"]) ?? resources?.memory?.limit;
  return { vcpus: vcpus(guest, quota, period, host), memoryMib: memoryMib(guest, memory, host) };
}

function vcpus(guest: Config["guest"], quota: number | undefined, period: number | undefined, host: HostSize): number {
  const wanted = quota !== undefined && quota > 0 ? Math.ceil(quota / (period || DEFAULT_PERIOD_US)) : guest.default_vcpus;
  return Math.max(1, Math.min(wanted + guest.base_vcpus, guest.max_vcpus, host.cpus));
}

function memoryMib(guest: Config["guest"], limit: number | undefined, host: HostSize): number {
  const limited = limit !== undefined && limit > 0 && limit < UNLIMITED;
  const wanted = limited ? Math.ceil(limit / MIB) : guest.default_memory_mib;
  const most = guest.max_memory_mib === 0 ? host.memoryMib : guest.max_memory_mib;
  return Math.max(guest.base_memory_mib, Math.min(wanted + guest.base_memory_mib, most));
}

/** Zero means "none" in the CRI's annotations. */
function number(text: string | undefined): number | undefined {
  const value = text === undefined ? Number.NaN : Number(text);
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}
