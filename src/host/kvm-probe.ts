/**
 * Can /dev/kvm run a stock kernel? A device file and a created machine prove nothing: some hosts emulate the guest's ring 0 and
 * lack what a kernel needs. So a tiny guest takes a breakpoint through an interrupt table and returns from it, which answers in
 * a millisecond. Asked once a boot.
 */
import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import * as z from "zod/mini";
import { errorChain } from "../base/errors.ts";
import { type KvmEnding, type KvmMachine, native } from "../native.ts";
import { IDT } from "../vmm/arch/x86_64/layout.ts";
import { bootRegisters, bootSpecialRegisters, CODE_SELECTOR, descriptorTable, pageTables } from "../vmm/arch/x86_64/registers.ts";
import { requireCapabilities } from "../vmm/capabilities.ts";
import { describeEnding } from "../vmm/endings.ts";

export const KVM_DEVICE = "/dev/kvm";
/** Emptied by a reboot, as the answer should be; the boot id is there for where it is not. */
const CACHE = "/run/tskata-kvm-probe.json";

export interface KvmVerdict {
  readonly works: boolean;
  /** One clause: what was seen. */
  readonly why: string;
}

const cacheSchema = z.object({ key: z.string(), works: z.boolean(), why: z.string() });

const MEMORY_BYTES = 0x10000;
const PROGRAM = 0x1000;
const HANDLER = 0x2000;
const HANDLER_RAN = 0x3000;
const RETURNED = 0x3008;
const BREAKPOINT = 3;
const LIMIT_MS = 2000;

/** The verdict of this boot; asks again when the device's file is another. */
export async function probeKvm(device = KVM_DEVICE, cache = CACHE): Promise<KvmVerdict> {
  const key = cacheKey(device);
  if (key === undefined) return { works: false, why: `there is no ${device}` };
  const known = readCache(cache, key);
  if (known !== undefined) return known;
  const verdict = await runProbe(device);
  writeCache(cache, { key, ...verdict });
  return verdict;
}

/** Runs the guest, whatever is known already. */
export async function runProbe(device: string): Promise<KvmVerdict> {
  try {
    const system = native().openKvm(device);
    try {
      requireCapabilities(system, device);
      return await runGuest(system.createMachine());
    } finally {
      system.close();
    }
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (syscall?.startsWith("open") === true && (code === "EACCES" || code === "EPERM")) {
      return { works: false, why: `${device} may not be opened for reading and writing (${code})` };
    }
    return { works: false, why: `${device}: ${errorChain(error)}` };
  }
}

async function runGuest(machine: KvmMachine): Promise<KvmVerdict> {
  let timer: NodeJS.Timeout | undefined;
  try {
    prepare(machine);
    const late = new Promise<undefined>((done) => {
      timer = setTimeout(() => done(undefined), LIMIT_MS);
    });
    machine.start();
    const ending = await Promise.race([machine.ended, late]);
    machine.pause();
    return judge(machine, ending);
  } finally {
    clearTimeout(timer);
    machine.close();
  }
}

function prepare(machine: KvmMachine): void {
  machine.addMemory(0, MEMORY_BYTES);
  const pieces = [
    descriptorTable(),
    pageTables(),
    { address: IDT + BREAKPOINT * 16, bytes: interruptGate(HANDLER) },
    { address: PROGRAM, bytes: Buffer.from([...INT3, ...storeByte(RETURNED), ...HLT]) },
    { address: HANDLER, bytes: Buffer.from([...storeByte(HANDLER_RAN), ...IRETQ]) },
  ];
  for (const { address, bytes } of pieces) machine.write(address, bytes);
  const vcpu = machine.createVcpu();
  machine.setVcpuState(vcpu, "sregs", bootSpecialRegisters(machine.vcpuState(vcpu, "sregs"), BREAKPOINT + 1));
  machine.setVcpuState(vcpu, "regs", bootRegisters(PROGRAM));
}

function judge(machine: KvmMachine, ending: KvmEnding | undefined): KvmVerdict {
  const seen = (address: number): boolean => machine.read(address, 1)[0] === 1;
  if (ending?.kind === "halt" && seen(HANDLER_RAN) && seen(RETURNED)) {
    return { works: true, why: "a test guest took an interrupt and returned from it" };
  }
  const how = ending === undefined ? `was not done after ${LIMIT_MS / 1000} s` : `ended early: ${describeEnding(ending)}`;
  return { works: false, why: `a test guest's breakpoint failed (${how}), so no stock kernel can run` };
}

const INT3 = [0xcc];
const HLT = [0xf4];
const IRETQ = [0x48, 0xcf];

/** movb $1, address */
function storeByte(address: number): number[] {
  const displacement = Buffer.alloc(4);
  displacement.writeUInt32LE(address);
  return [0xc6, 0x04, 0x25, ...displacement, 1];
}

/** A 64-bit interrupt gate (SDM volume 3, §6.14.1), below 64 KiB. */
function interruptGate(handler: number): Buffer {
  const gate = Buffer.alloc(16);
  gate.writeUInt16LE(handler, 0);
  gate.writeUInt16LE(CODE_SELECTOR, 2);
  gate.writeUInt8(0x8e, 5);
  return gate;
}

/** Undefined when there is no device. A module loaded anew makes a new file. */
function cacheKey(device: string): string | undefined {
  try {
    const { rdev, ctimeMs } = statSync(device);
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${device} ${rdev} ${ctimeMs} ${process.geteuid?.()}`;
  } catch {
    return undefined;
  }
}

function readCache(file: string, key: string): KvmVerdict | undefined {
  try {
    if (statSync(file).uid !== process.geteuid?.()) return undefined;
    const { data } = cacheSchema.safeParse(JSON.parse(readFileSync(file, "utf8")));
    return data?.key === key ? { works: data.works, why: data.why } : undefined;
  } catch {
    return undefined; // none, or half of one: asked again
  }
}

function writeCache(file: string, content: z.infer<typeof cacheSchema>): void {
  try {
    writeFileSync(`${file}.${process.pid}`, JSON.stringify(content), { mode: 0o600 });
    renameSync(`${file}.${process.pid}`, file);
  } catch {
    // Asked again next time.
  }
}
