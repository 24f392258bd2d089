/** QEMU's command line for a pod: microvm, devices on virtio-mmio, ours by vhost-user. */
import type { MachineOptions } from "../machine.ts";

export interface QemuOptions extends MachineOptions {
  readonly accelerator: "kvm" | "tcg";
  /** vhost-user sockets of our devices, relative to the working folder. */
  readonly sockets: { readonly vsock: string; readonly fs: string };
}

/** EPYC is the newest model that TCG boots every time; with KVM the guest gets the host's CPU. */
const CPU = { tcg: "EPYC", kvm: "host" } as const;

export function qemuArguments(options: QemuOptions): string[] {
  const { accelerator, sockets } = options;
  return [
    ...["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-name", "tskata"],
    // acpi=off: the guest kernel has none, the command line tells it of the virtio-mmio slots.
    ...["-machine", `microvm,x-option-roms=off,rtc=on,acpi=off,auto-kernel-cmdline=on,memory-backend=memory`],
    ...["-accel", accelerator === "tcg" ? "tcg,thread=multi" : "kvm", "-cpu", CPU[accelerator]],
    ...["-smp", String(options.vcpus), "-m", `${options.memoryMib}M`],
    // Shared, because our devices are in another process.
    ...["-object", `memory-backend-memfd,id=memory,size=${options.memoryMib}M,share=on`],
    ...["-kernel", options.kernel, "-append", options.commandLine],
    ...["-chardev", `file,id=console,path=${escape(options.consoleLog)},append=on`, "-serial", "chardev:console"],
    ...["-drive", `id=image,file=${escape(options.image)},format=raw,if=none,readonly=on,file.locking=off`, "-device", "virtio-blk-device,drive=image"],
    ...["-chardev", `socket,id=vsock,path=${escape(sockets.vsock)}`, "-device", "vhost-user-vsock-device,chardev=vsock"],
    ...["-chardev", `socket,id=fs,path=${escape(sockets.fs)}`, "-device", "vhost-user-fs-device,chardev=fs,tag=tskata,queue-size=1024"],
    ...["-device", "virtio-rng-device", "-device", "virtio-balloon-device,free-page-reporting=on"],
  ];
}

/** In QEMU's option lists a comma is written twice. */
function escape(value: string): string {
  return value.replaceAll(",", ",,");
}
