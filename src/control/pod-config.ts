/** <pod>/config.json: what the command line tells a sandbox process before it starts it. */
import * as z from "zod/mini";

const podConfigSchema = z.object({
  version: z.literal(1),
  /** The container that starts the pod. */
  id: z.string(),
  hypervisor: z.discriminatedUnion("driver", [
    z.object({ driver: z.literal("kvm"), device: z.string() }),
    /** `qemu` is an absolute path. */
    z.object({ driver: z.literal("qemu"), accelerator: z.enum(["kvm", "tcg"]), qemu: z.string() }),
  ]),
  /** Absolute path of the program that processes of the pod pass through. */
  jail: z.string(),
  kernel: z.string(),
  image: z.string(),
  kernelParameters: z.array(z.string()),
  vcpus: z.int().check(z.minimum(1)),
  memoryMib: z.int().check(z.minimum(1)),
  hostname: z.string(),
  guestLogLevel: z.string(),
  logLevel: z.string(),
  fsThreads: z.int().check(z.minimum(1)),
  /** Whether root filesystems have a device of their own, whose writes the guest keeps for a while. */
  writeback: z.boolean(),
  /** From the sandbox process's first step until the guest's agent has set up the pod. */
  startTimeoutMs: z.int().check(z.minimum(1)),
  /** For each request to the agent. */
  callTimeoutMs: z.int().check(z.minimum(1)),
  /** Whether the jail's lists of system calls hold. */
  seccomp: z.enum(["enforce", "log", "off"]),
});

export type PodConfig = z.infer<typeof podConfigSchema>;

/** The machine, for people. */
export function machineInWords({ hypervisor, vcpus, memoryMib }: PodConfig): string {
  const driver = hypervisor.driver === "kvm" ? "kvm" : `qemu with ${hypervisor.accelerator === "kvm" ? "KVM" : "TCG"}`;
  return `driver ${driver}, ${vcpus} vCPU${vcpus === 1 ? "" : "s"}, ${memoryMib} MiB`;
}

export function parsePodConfig(text: string): PodConfig {
  return podConfigSchema.parse(JSON.parse(text));
}
