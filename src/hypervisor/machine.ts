/** What a driver makes: a machine that runs until its end is told. */
import type { VirtioDevice } from "../native.ts";

/** A folder that the guest mounts by its tag. */
export interface SharedFolder {
  readonly tag: string;
  readonly device: VirtioDevice;
}

export interface MachineOptions {
  readonly kernel: string;
  readonly image: string;
  /** Parameters of the administrator's. */
  readonly kernelParameters: readonly string[];
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly vsock: VirtioDevice;
  readonly shared: readonly SharedFolder[];
  /** The guest's serial console is appended here. */
  readonly consoleLog: string;
}

/**
 * How long the file server looks for the guest's next request before it waits for a notification, by what runs the guest. Under TCG it takes the guest
 * some 100 µs from an answer to its next request, and waking the server costs tens more. A guest on hardware asks again sooner than a thread falls asleep
 * and wakes, or has nothing to ask: there is little to gain, and a processor's time to lose.
 */
export const FS_PATIENCE_US = { tcg: 300, kvm: 20 } as const;

/** How a machine ended, in words, and whose doing that was. */
export interface MachineEnd {
  readonly by: "guest" | "hypervisor";
  readonly what: string;
}

export interface Machine {
  readonly pid: number | undefined;
  readonly ended: Promise<MachineEnd>;
  /**
   * Gives one of its placeholders a device while it runs, and returns the slot's name on the guest's platform bus: there the guest's
   * kernel finds the device once that name is written to `drivers/virtio-mmio/bind`. A driver without placeholders refuses.
   */
  attach(device: VirtioDevice): string;
  /** Ends it now. */
  kill(): void;
  /** Exits to the VMM by cause, one record a vCPU; nothing where another process has them. */
  exits(): Record<string, number>[];
}

/** What every guest is told, whatever the driver; `machine` is what the driver adds about its own devices. */
export function kernelCommandLine(root: string, machine: readonly string[], parameters: readonly string[]): string {
  const own = [
    ...["console=ttyS0", "loglevel=4", "panic=-1"],
    ...[`root=${root}`, "rootfstype=erofs", "ro", "init=/bin/node"],
    "cgroup_no_v1=all",
    // No network devices but those that somebody makes: as in a new network namespace of most hosts, whose modules are not loaded.
    "fb_tunnels=none",
    "dummy.numdummies=0",
    // The host's RNG device and the sandbox's entropy seed it anyway; waiting for jitter would cost the start.
    "random.trust_cpu=on",
  ];
  return [...own, ...machine, ...parameters, "--", ...NODE_FLAGS, "/agent/agent.cjs"].join(" ");
}

/** Of node as PID 1: measured in docs/performance.md. */
const NODE_FLAGS = ["--max-old-space-size=64", "--max-semi-space-size=2", "--no-warnings"];
