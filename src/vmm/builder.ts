/**
 * A boot, read top-down: memory, kernel, tables, vCPUs, slots. What it leaves is a machine that has not run yet.
 *
 * No device beyond what is used: no PCI, no ACPI, no firmware, no PIT, no clock chip. Time comes from kvmclock, the kernel's
 * place on the bus from its command line.
 */
import { randomBytes } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { FailureError } from "../base/failures.ts";
import { type KvmMachine, type KvmSystem, native, type VirtioDevice } from "../native.ts";
import { bootParams, randomSeed } from "./arch/x86_64/boot-params.ts";
import { encodeCpuid, guestCpuid, parseCpuid } from "./arch/x86_64/cpuid.ts";
import * as layout from "./arch/x86_64/layout.ts";
import { mpTable } from "./arch/x86_64/mp-table.ts";
import { bootRegisters, bootSpecialRegisters, descriptorTable, pageTables } from "./arch/x86_64/registers.ts";
import { requireCapabilities } from "./capabilities.ts";
import { KERNEL_HEAD_BYTES, type KernelImage, parseKernel } from "./kernel-image.ts";

export const MAX_VCPUS = 32;
export const MAX_MEMORY_MIB = 64 * 1024;
/** COMMAND_LINE_SIZE of x86, its final NUL included. */
const COMMAND_LINE_LIMIT = 2048;
const SEED_BYTES = 32;
const KVM_CAP_TSC_DEADLINE_TIMER = 72;
const MSR_MISC_ENABLE = 0x1a0;
const FAST_STRINGS = 1n;

export interface MachineDescription {
  readonly kvm: string;
  readonly kernel: string;
  /** Shown to the guest as persistent memory, shared with every other pod that shows it. */
  readonly image: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** In the order of their slots; placeholders come after them. */
  readonly devices: readonly VirtioDevice[];
  readonly placeholders: number;
  readonly console: { readonly log: string };
  /** The kernel's, given what the machine adds about itself. */
  readonly commandLine: (machine: readonly string[]) => string;
}

export interface BuiltMachine {
  readonly machine: KvmMachine;
  /** Gives an empty slot an identity, before or after the start; returns the slot's name on the guest's platform bus. */
  attach(device: VirtioDevice): string;
}

export function buildMachine(description: MachineDescription): BuiltMachine {
  checkSize(description);
  const system = openSystem(description.kvm);
  try {
    const machine = system.createMachine();
    try {
      return build(system, machine, description);
    } catch (error) {
      machine.close();
      throw error;
    }
  } finally {
    system.close();
  }
}

function build(system: KvmSystem, machine: KvmMachine, description: MachineDescription): BuiltMachine {
  const memory = layout.memoryRanges(description.memoryMib * layout.MIB);
  for (const { address, bytes } of memory) machine.addMemory(address, bytes);
  const image = addImage(machine, description.image, memory);
  machine.createIrqchip();

  const slots = description.devices.length + 1 + description.placeholders;
  const kernel = loadKernel(machine, description.kernel, memory);
  writeTables(machine, kernel, description, memory, slots);
  createVcpus(system, machine, kernel, description.vcpus);

  machine.addUart(layout.SERIAL_PORT, layout.SERIAL_LINE, description.console.log);
  machine.addResetPort(layout.RESET_PORT);
  for (let slot = 0; slot < slots; ++slot) machine.addSlot(slotAddress(slot), layout.FIRST_SLOT_LINE + slot);
  const devices = [native().createPmem({ guestAddress: BigInt(image.address), size: BigInt(image.bytes) }), ...description.devices];
  devices.forEach((device, slot) => void machine.attach(slot, device));
  return { machine, attach: attacher(machine, devices.length, slots) };
}

function attacher(machine: KvmMachine, used: number, slots: number): (device: VirtioDevice) => string {
  let next = used;
  return (device) => {
    if (next === slots) throw new TskataError("unavailable", `the machine's ${slots} device slots are all taken`);
    machine.attach(next, device);
    return slotName(next++);
  };
}

function checkSize({ vcpus, memoryMib, devices, placeholders }: MachineDescription): void {
  if (vcpus > MAX_VCPUS) throw new TskataError("invalid", `${vcpus} vCPUs: the kvm driver has at most ${MAX_VCPUS}`);
  if (memoryMib > MAX_MEMORY_MIB) throw new TskataError("invalid", `${memoryMib} MiB of memory: the kvm driver has at most ${MAX_MEMORY_MIB}`);
  const slots = devices.length + 1 + placeholders;
  if (slots > layout.MAX_SLOTS) throw new TskataError("invalid", `${slots} device slots: the kvm driver has at most ${layout.MAX_SLOTS}`);
}

function openSystem(path: string): KvmSystem {
  const system = native().openKvm(path);
  try {
    requireCapabilities(system, path);
    return system;
  } catch (error) {
    system.close();
    throw error;
  }
}

/** The guest image behind all memory, its size rounded up to what a kernel maps persistent memory in. */
function addImage(machine: KvmMachine, file: string, memory: readonly layout.Range[]): layout.Range {
  const fd = openSync(file, "r");
  try {
    const { size } = fstatSync(fd);
    if (size === 0) throw new TskataError("unavailable", `guest image ${file} is empty`);
    const unit = 2 * layout.MIB;
    const range = { address: layout.persistentMemoryAddress(memory), bytes: Math.ceil(size / unit) * unit };
    machine.addFile(range.address, file, range.bytes);
    return range;
  } finally {
    closeSync(fd);
  }
}

function loadKernel(machine: KvmMachine, file: string, memory: readonly layout.Range[]): KernelImage {
  const fd = openSync(file, "r");
  try {
    const head = Buffer.alloc(KERNEL_HEAD_BYTES);
    const kernel = parseKernel(head.subarray(0, readSync(fd, head, 0, head.length, 0)), fstatSync(fd).size, file);
    const room = memory[0]?.bytes ?? 0;
    if (kernel.end > room) {
      const [has, takes] = [room, kernel.end].map((bytes) => Math.ceil(bytes / layout.MIB));
      throw new FailureError("guest-out-of-memory", `the guest has ${has} MiB of memory, and its kernel ${file} takes ${takes}`);
    }
    for (const { fileOffset, address, bytes } of kernel.pieces) machine.load(address, fd, fileOffset, bytes);
    return kernel;
  } finally {
    closeSync(fd);
  }
}

function writeTables(machine: KvmMachine, kernel: KernelImage, description: MachineDescription, memory: readonly layout.Range[], slots: number): void {
  const commandLine = Buffer.from(`${description.commandLine(machineParameters(slots))}\0`, "utf8");
  if (commandLine.length > COMMAND_LINE_LIMIT) {
    throw new TskataError("invalid", `the kernel's command line has ${commandLine.length} bytes of ${COMMAND_LINE_LIMIT}: fewer guest.kernel_parameters`);
  }
  machine.write(layout.COMMAND_LINE, commandLine);
  machine.write(layout.SETUP_DATA, randomSeed(randomBytes(SEED_BYTES)));
  const tables = [
    bootParams({ memory, commandLineBytes: commandLine.length, header: kernel.header, setupData: layout.SETUP_DATA }),
    mpTable(description.vcpus),
    descriptorTable(),
    pageTables(),
  ];
  for (const { address, bytes } of tables) machine.write(address, bytes);
}

function createVcpus(system: KvmSystem, machine: KvmMachine, kernel: KernelImage, count: number): void {
  const supported = parseCpuid(system.supportedCpuid());
  const tscDeadline = system.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  for (let index = 0; index < count; ++index) {
    const id = machine.createVcpu();
    machine.setCpuid(id, encodeCpuid(guestCpuid(supported, { id, count, tscDeadline })));
    // What a PC's firmware turns on. A host that doesn't know the register does without.
    machine.setMsrs(id, encodeMsrs([[MSR_MISC_ENABLE, FAST_STRINGS]]));
    // The others wait for the first one's start-up interrupt, as after any reset.
    if (id !== 0) continue;
    machine.setVcpuState(id, "sregs", bootSpecialRegisters(machine.vcpuState(id, "sregs")));
    machine.setVcpuState(id, "regs", bootRegisters(kernel.entry));
  }
}

/** kvm_msr_entry[]. */
function encodeMsrs(entries: readonly (readonly [number, bigint])[]): Buffer {
  const out = Buffer.alloc(entries.length * 16);
  entries.forEach(([index, value], i) => {
    out.writeUInt32LE(index, i * 16);
    out.writeBigUInt64LE(value, i * 16 + 8);
  });
  return out;
}

function slotAddress(slot: number): number {
  return layout.SLOTS + slot * layout.SLOT_BYTES;
}

/** The kernel numbers the slots in the order in which its command line names them. */
function slotName(slot: number): string {
  return `virtio-mmio.${slot}`;
}

/** What this machine's kernel must be told: how it restarts, that there is nothing to look for, where its devices are. */
function machineParameters(slots: number): string[] {
  const devices = Array.from({ length: slots }, (_, slot) => {
    return `virtio_mmio.device=4K@0x${slotAddress(slot).toString(16)}:${layout.FIRST_SLOT_LINE + slot}`;
  });
  return ["reboot=k", "pci=off", ...devices];
}
