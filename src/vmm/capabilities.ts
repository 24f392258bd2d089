/** What of KVM the machine is made of: checked before anything is made, told by name when it is missing. */
import { TskataError } from "../base/errors.ts";
import type { KvmSystem } from "../native.ts";

const API_VERSION = 12;

/** Numbers of <linux/kvm.h>. */
const REQUIRED: readonly (readonly [name: string, number: number])[] = [
  ["KVM_CAP_IRQCHIP", 0],
  ["KVM_CAP_USER_MEMORY", 3],
  ["KVM_CAP_SET_TSS_ADDR", 4],
  ["KVM_CAP_EXT_CPUID", 7],
  ["KVM_CAP_MP_STATE", 14],
  ["KVM_CAP_IRQFD", 32],
  ["KVM_CAP_IOEVENTFD", 36],
  ["KVM_CAP_SET_IDENTITY_MAP_ADDR", 37],
  ["KVM_CAP_ADJUST_CLOCK", 39],
  ["KVM_CAP_VCPU_EVENTS", 41],
  ["KVM_CAP_DEBUGREGS", 50],
  ["KVM_CAP_XSAVE", 55],
  ["KVM_CAP_XCRS", 56],
  ["KVM_CAP_READONLY_MEM", 81],
  ["KVM_CAP_IMMEDIATE_EXIT", 136],
];

export function requireCapabilities(system: KvmSystem, path: string): void {
  if (system.apiVersion !== API_VERSION) throw new TskataError("unavailable", `${path} speaks version ${system.apiVersion} of KVM's API, not ${API_VERSION}`);
  const missing = REQUIRED.filter(([, number]) => system.capability(number) === 0).map(([name]) => name);
  if (missing.length > 0) throw new TskataError("unavailable", `${path} lacks ${missing.join(", ")}`);
}
