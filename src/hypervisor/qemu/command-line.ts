/** QEMU's command line for a pod: microvm, devices on virtio-mmio, ours by vhost-user. */
import { kernelCommandLine, type MachineOptions } from "../machine.ts";

export interface QemuOptions extends MachineOptions {
  readonly accelerator: "kvm" | "tcg";
  /** Frequency of the time stamp counter under TCG, 0 when it is not known. */
  readonly tscKhz: number;
  /** vhost-user sockets of our devices, relative to the working folder. */
  readonly sockets: { readonly vsock: string; readonly shared: readonly string[] };
}

/** What the model has and TCG does not emulate: it would be missing all the same, after a warning a piece for each pod's log. */
const NOT_IN_TCG = [
  ...["rdseed", "sha-ni", "fxsr-opt", "misalignsse", "3dnowprefetch", "osvw", "topoext", "perfctr-core", "clzero", "xsaveerptr"],
  ...["ibpb", "nrip-save", "xsavec", "xsaves"],
];
/** EPYC is the newest model that TCG boots every time; with KVM the guest gets the host's CPU. */
const CPU = { tcg: ["EPYC", ...NOT_IN_TCG.map((feature) => `${feature}=off`)].join(","), kvm: "host" } as const;

/** microvm's virtio-mmio slots (hw/i386/microvm.c): 512 bytes each from here, interrupts from 5 on. */
const MMIO_BASE = 0xfeb0_0000;
const MMIO_SIZE = 512;
const MMIO_IRQ_BASE = 5;

export function qemuArguments(options: QemuOptions): string[] {
  const { accelerator, shared, sockets } = options;
  const devices = [
    "virtio-blk-device,drive=image",
    "vhost-user-vsock-device,chardev=vsock",
    ...shared.map(({ tag }, index) => `vhost-user-fs-device,chardev=fs${index},tag=${tag},queue-size=1024`),
    "virtio-rng-device",
    "virtio-balloon-device,free-page-reporting=on",
  ];
  return [
    ...["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-name", "tskata"],
    // seccomp: QEMU itself starts no program and gains no privilege.
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    // acpi=off: the guest kernel has none. QEMU would add the slots behind our "--", where they are init's arguments.
    ...["-machine", "microvm,x-option-roms=off,rtc=on,acpi=off,auto-kernel-cmdline=off,memory-backend=memory"],
    ...["-accel", accelerator === "tcg" ? "tcg,thread=multi" : "kvm", "-cpu", CPU[accelerator]],
    ...["-smp", String(options.vcpus), "-m", `${options.memoryMib}M`],
    // Shared, because our devices are in another process.
    ...["-object", `memory-backend-memfd,id=memory,size=${options.memoryMib}M,share=on`],
    ...["-kernel", options.kernel, "-append", kernelCommandLine("/dev/vda", machineParameters(options, devices), options.kernelParameters)],
    ...["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ...["-drive", `id=image,file=${escapeCommas(options.image)},format=raw,if=none,readonly=on,file.locking=off`],
    ...["-chardev", `socket,id=vsock,path=${escapeCommas(sockets.vsock)}`],
    ...sockets.shared.flatMap((path, index) => ["-chardev", `socket,id=fs${index},path=${escapeCommas(path)}`]),
    ...devices.flatMap((device, slot) => ["-device", `${device},bus=virtio-mmio-bus.${slot}`]),
  ];
}

/**
 * Under TCG the guest reads the host's counter but has no timer to calibrate it against but an emulated PIT: that fails now and
 * then, hangs rarely, and leaves a clock of 10 ms. So it is told.
 *
 * A file server of ours writes code into guest memory that TCG has no notice of; that of QEMU 10 (not of 7.2) goes on with its translation of what was
 * on the page before, and programs crash once the guest reuses memory. A page that the guest has cleared (init_on_alloc) has no translation.
 */
function machineParameters({ accelerator, tscKhz }: QemuOptions, devices: readonly string[]): string[] {
  const clock = accelerator === "tcg" && tscKhz > 0 ? [`tsc_early_khz=${tscKhz}`, "tsc=reliable"] : [];
  const code = accelerator === "tcg" ? ["init_on_alloc=1"] : [];
  return ["reboot=t", "pci=off", ...clock, ...code, ...devices.map(mmioSlot)];
}

/** Without ACPI the kernel learns of a slot from its command line (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES). */
function mmioSlot(_device: string, slot: number): string {
  return `virtio_mmio.device=${MMIO_SIZE}@0x${(MMIO_BASE + slot * MMIO_SIZE).toString(16)}:${MMIO_IRQ_BASE + slot}`;
}

/** In QEMU's option lists a comma is written twice. */
function escapeCommas(value: string): string {
  return value.replaceAll(",", ",,");
}
