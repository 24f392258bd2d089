/** Why a machine has stopped, in words that name what happened to the guest. */
import type { KvmEnding } from "../native.ts";

/** Whatever the driver; a triple fault is a restart for those that can't tell. */
export const GUEST_RESTARTED = "the guest restarted or powered off";

/** KVM API §5, KVM_EXIT_INTERNAL_ERROR. */
const SUBERRORS: Readonly<Record<string, string>> = {
  1: "the host's KVM could not emulate an instruction",
  2: "an exception while another was delivered",
  3: "an event could not be delivered",
  4: "an exit of the hardware that KVM does not know",
};

/** Ends that a guest can come to by itself on every host; all others are its host's doing. */
const GUEST_ENDS: readonly KvmEnding["kind"][] = ["reset", "shutdown", "system-event", "halt"];

export function endedByGuest({ kind }: KvmEnding): boolean {
  return GUEST_ENDS.includes(kind);
}

export function describeEnding({ kind, vcpu, detail, instruction }: KvmEnding): string {
  const where = `vCPU ${vcpu} at 0x${instruction.toString(16)}`;
  switch (kind) {
    case "reset":
      return GUEST_RESTARTED;
    case "shutdown":
      return `the guest had a triple fault (${where})`;
    case "internal-error":
      return `KVM internal error ${detail}: ${SUBERRORS[String(detail)] ?? "unknown"} (${where})`;
    case "entry-failure":
      return `the host's CPU refused to enter the guest, hardware reason 0x${detail.toString(16)} (${where})`;
    case "system-event":
      return `the guest ended by system event ${detail}`;
    case "error":
      return `KVM_RUN failed with errno ${detail} (${where})`;
    case "host-error":
      return `an access of the guest could not be answered, errno ${detail} (${where})`;
    case "halt":
      return `the guest halted for good (${where})`;
    case "unknown-exit":
      return `the guest left for a reason that is not known, KVM exit ${detail} (${where})`;
  }
}
