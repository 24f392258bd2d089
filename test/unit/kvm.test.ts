/**
 * The binding to /dev/kvm, through src/native.ts: small guests in ring 0 of 64-bit mode that use nothing which a host that emulates
 * ring 0 lacks (no interrupts, no returns from them). A host without /dev/kvm passes with a note.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { type KvmEnding, type KvmMachine, type KvmSystem, type MachineStatePart, native, type VcpuStatePart } from "../../src/native.ts";
import { bootRegisters, bootSpecialRegisters, descriptorTable, pageTables } from "../../src/vmm/arch/x86_64/registers.ts";
import { repository, runProgram, temporaryFolder } from "./helpers.ts";

const MEMORY = 0x20000;
const PAGE = 4096;
const PROGRAM = 0x1000;
const COUNTER = 0x10000;
/** Mapped by the page tables, and no memory there. */
const SLOT = 0x1000_0000;
const FILE = 0x2000_0000;
const LINE = 5;
const LIMIT_MS = 20_000;
const KVM_CAP_XSAVE2 = 208;

const HLT = [0xf4];
const UD2 = [0x0f, 0x0b];
const SPIN = [0xeb, 0xfe];
const bytesOf = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
/** mov al, value; out port, al */
const out = (port: number, value: number): number[] => [0xb0, value, 0xe6, port];
/** in al, port; mov [address], al */
const inTo = (port: number, address: number): number[] => [0xe4, port, 0x88, 0x04, 0x25, ...bytesOf(address)];
/** mov byte [address], value */
const store = (address: number, value: number): number[] => [0xc6, 0x04, 0x25, ...bytesOf(address), value];
/** mov eax, [from]; mov [to], eax */
const copy = (from: number, to: number): number[] => [0x8b, 0x04, 0x25, ...bytesOf(from), 0x89, 0x04, 0x25, ...bytesOf(to)];
/** inc qword [rdi + address]; jmp back */
const COUNT = [0x48, 0xff, 0x87, ...bytesOf(COUNTER), 0xeb, 0xf7];

function kvmHere(): boolean {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A test with /dev/kvm, or a note. One after the other: a guest that spins takes a core from all others. */
function kvmTest(name: string, body: (t: ExecutionContext, system: KvmSystem) => void | Promise<void>): void {
  test.serial(name, async (t) => {
    if (!kvmHere()) {
      t.log("no /dev/kvm that may be opened: nothing tested");
      return t.pass();
    }
    t.timeout(60_000);
    const system = native().openKvm("/dev/kvm");
    t.teardown(() => system.close());
    await body(t, system);
  });
}

interface GuestOptions {
  readonly vcpus?: number;
  readonly irqchip?: boolean;
  /** Between memory and vCPUs. */
  readonly prepare?: (machine: KvmMachine) => void;
}

/** A machine that is to run `program` on all its vCPUs, each with its number times eight in RDI. */
function guest(t: ExecutionContext, system: KvmSystem, program: readonly number[], { vcpus = 1, irqchip = false, prepare }: GuestOptions = {}): KvmMachine {
  const machine = system.createMachine();
  t.teardown(() => machine.close());
  machine.addMemory(0, MEMORY);
  for (const { address, bytes } of [descriptorTable(), pageTables(), { address: PROGRAM, bytes: Buffer.from(program) }]) machine.write(address, bytes);
  if (irqchip) machine.createIrqchip();
  prepare?.(machine);
  for (let id = 0; id < vcpus; ++id) {
    machine.createVcpu();
    machine.setVcpuState(id, "sregs", bootSpecialRegisters(machine.vcpuState(id, "sregs")));
    const registers = bootRegisters(PROGRAM);
    registers.writeBigUInt64LE(BigInt(id * 8), 5 * 8);
    machine.setVcpuState(id, "regs", registers);
  }
  return machine;
}

async function ending(machine: KvmMachine): Promise<KvmEnding | undefined> {
  return await Promise.race([machine.ended, sleep(LIMIT_MS, undefined, { ref: false })]);
}

async function run(machine: KvmMachine): Promise<KvmEnding | undefined> {
  machine.start();
  return await ending(machine);
}

const counter = (machine: KvmMachine, vcpu = 0): bigint => machine.read(COUNTER + vcpu * 8, 8).readBigUInt64LE();

async function until(done: () => boolean): Promise<void> {
  const end = Date.now() + LIMIT_MS;
  while (!done()) {
    if (Date.now() > end) throw new Error("waited in vain");
    await sleep(5);
  }
}

/** What is thrown: its errno name, the request's name and the text. */
function thrown(body: () => unknown, what = "the call"): { code: string | undefined; syscall: string | undefined; message: string } {
  try {
    body();
  } catch (error) {
    const { code, syscall, message } = error as NodeJS.ErrnoException;
    return { code, syscall, message };
  }
  throw new Error(`${what} did not throw`);
}

kvmTest("a guest computes, and halts for good without an interrupt controller", async (t, system) => {
  const machine = guest(t, system, [...store(COUNTER, 42), ...HLT]);
  const why = await run(machine);
  t.is(why?.kind, "halt");
  t.is(why?.vcpu, 0);
  t.is(why?.instruction, BigInt(PROGRAM + 9));
  t.is(counter(machine), 42n);
});

kvmTest("port accesses: nobody's read all ones, and each is counted", async (t, system) => {
  const machine = guest(t, system, [...out(0x80, 1), ...out(0x80, 2), ...inTo(0x81, COUNTER), ...HLT]);
  t.is((await run(machine))?.kind, "halt");
  t.is(counter(machine), 0xffn);
  const [counts] = machine.exits();
  t.is(counts?.["io 0x80"], 2);
  t.is(counts?.["io 0x81"], 1);
});

kvmTest("a device slot answers the guest, and its accesses are counted by page", async (t, system) => {
  const program = [...copy(SLOT, COUNTER), ...copy(SLOT + 8, COUNTER + 4), ...copy(SLOT + PAGE, COUNTER + 8), ...out(0x64, 0xfe), ...SPIN];
  const machine = guest(t, system, program, {
    irqchip: true,
    prepare: (it) => {
      it.addResetPort(0x64);
      const slot = it.addSlot(SLOT, LINE);
      const device = native().createRng();
      t.teardown(() => device.close());
      it.attach(slot, device);
    },
  });
  t.is((await run(machine))?.kind, "reset");
  t.is(machine.read(COUNTER, 4).toString("latin1"), "virt");
  t.is(machine.read(COUNTER + 4, 4).readUInt32LE(), 4);
  t.is(machine.read(COUNTER + 8, 4).readUInt32LE(), 0xffff_ffff);
  const [counts] = machine.exits();
  t.is(counts?.[`mmio 0x${SLOT.toString(16)}`], 2);
  t.is(counts?.[`mmio 0x${(SLOT + PAGE).toString(16)}`], 1);
});

kvmTest("the pulse on the reset line ends the machine, another command does not", async (t, system) => {
  const machine = guest(t, system, [...out(0x64, 0xd1), ...store(COUNTER, 1), ...out(0x64, 0xfe), ...SPIN], { prepare: (it) => it.addResetPort(0x64) });
  t.is((await run(machine))?.kind, "reset");
  t.is(counter(machine), 1n);
});

kvmTest("a triple fault is a shutdown", async (t, system) => {
  const machine = guest(t, system, UD2);
  const why = await run(machine);
  // An emulator that cannot deliver the exception says so.
  t.true(why?.kind === "shutdown" || why?.kind === "internal-error", JSON.stringify(why?.kind));
  if (why?.kind !== "shutdown") t.log(`this host's KVM ends a triple fault with ${why?.kind}`);
});

kvmTest("the serial port's bytes are in the log", async (t, system) => {
  const log = join(temporaryFolder(t), "console");
  const dx = (port: number): number[] => [0x66, 0xba, port & 0xff, port >> 8];
  const program = [...dx(0x3f8), ...[..."ok\n"].flatMap((letter) => [0xb0, letter.charCodeAt(0), 0xee]), ...out(0x64, 0xfe), ...SPIN];
  const machine = guest(t, system, program, {
    irqchip: true,
    prepare: (it) => {
      it.addResetPort(0x64);
      it.addUart(0x3f8, 4, log);
      t.regex(thrown(() => it.addUart(0x2f8, 3, log)).message, /serial port/);
    },
  });
  t.is((await run(machine))?.kind, "reset");
  machine.close();
  t.is(readFileSync(log, "utf8"), "ok\n");
});

kvmTest("a file is read by the guest and never written", async (t, system) => {
  const file = join(temporaryFolder(t), "image");
  writeFileSync(file, Buffer.alloc(PAGE + 10, "a"));
  const program = [...copy(FILE, COUNTER), ...store(FILE, 0x62), ...copy(FILE, COUNTER + 4), ...copy(FILE + PAGE + 12, COUNTER + 8), ...HLT];
  const machine = guest(t, system, program, { prepare: (it) => it.addFile(FILE, file, 2 * PAGE) });
  t.is((await run(machine))?.kind, "halt");
  t.is(machine.read(COUNTER, 8).toString("latin1"), "aaaaaaaa");
  t.is(machine.read(COUNTER + 8, 4).readUInt32LE(), 0);
  t.is(machine.exits()[0]?.[`mmio 0x${FILE.toString(16)}`], 1);
  t.true(readFileSync(file).every((byte) => byte === 0x61));
});

kvmTest("a spinning guest pauses, shows its state, goes on where it was, and is closed", async (t, system) => {
  const machine = guest(t, system, COUNT);
  machine.start();
  await until(() => counter(machine) > 0n);
  for (let round = 0; round < 20; ++round) {
    machine.pause();
    const [before, registers] = [counter(machine), machine.vcpuState(0, "regs")];
    t.true(registers.readBigUInt64LE(16 * 8) >= BigInt(PROGRAM) && registers.readBigUInt64LE(16 * 8) < BigInt(PROGRAM + COUNT.length));
    if (round === 0) await sleep(50);
    t.is(counter(machine), before);
    machine.setVcpuState(0, "regs", registers);
    machine.pause();
    machine.resume();
    machine.resume();
    await until(() => counter(machine) > before);
  }
  t.true((machine.exits()[0]?.["interrupted"] ?? 0) >= 20);
  machine.close();
});

kvmTest("a machine that was paused before its start waits", async (t, system) => {
  const machine = guest(t, system, COUNT);
  machine.pause();
  machine.start();
  await sleep(50);
  t.is(counter(machine), 0n);
  machine.pause();
  machine.resume();
  await until(() => counter(machine) > 0n);
});

kvmTest("state is refused, not waited for, while the guest runs; counters are there", async (t, system) => {
  const machine = guest(t, system, COUNT);
  machine.start();
  await until(() => counter(machine) > 0n);
  for (const ask of [
    () => machine.vcpuState(0, "regs"),
    () => machine.setVcpuState(0, "regs", bootRegisters(PROGRAM)),
    () => machine.msrs(0, Buffer.alloc(16)),
    () => machine.setMsrs(0, Buffer.alloc(16)),
    () => machine.setCpuid(0, Buffer.alloc(0)),
  ]) {
    t.regex(thrown(ask).message, /runs/);
  }
  t.is(machine.statistics().length, 1);
  t.is(machine.exits().length, 1);
  for (const late of [() => machine.start(), () => machine.createVcpu(), () => machine.addMemory(FILE, PAGE), () => machine.addResetPort(0x64)]) {
    t.regex(thrown(late).message, /runs already/);
  }
});

kvmTest("32 vCPUs run, pause together, and all end when one does", async (t, system) => {
  const vcpus = 32;
  const machine = guest(t, system, COUNT, { vcpus });
  machine.start();
  const all = Array.from({ length: vcpus }, (_, id) => id);
  await until(() => all.every((id) => counter(machine, id) > 0n));
  machine.pause();
  const before = all.map((id) => counter(machine, id));
  await sleep(50);
  t.deepEqual(
    all.map((id) => counter(machine, id)),
    before,
  );
  t.is(machine.exits().length, vcpus);
  const registers = machine.vcpuState(7, "regs");
  machine.write(0x3000, Buffer.from(HLT));
  registers.writeBigUInt64LE(0x3000n, 16 * 8);
  machine.setVcpuState(7, "regs", registers);
  machine.resume();
  const why = await ending(machine);
  t.is(why?.kind, "halt");
  t.is(why?.vcpu, 7);
  machine.pause();
  const after = all.map((id) => counter(machine, id));
  await sleep(50);
  t.deepEqual(
    all.map((id) => counter(machine, id)),
    after,
    "nobody runs on",
  );
  t.true(all.every((id) => machine.vcpuState(id, "regs").length > 0));
  machine.resume();
  machine.close();
});

kvmTest("the dirty log names exactly the pages that were written", async (t, system) => {
  const written = [0x10000, 0x12000, 0x1f000];
  const second = PROGRAM + 0x100;
  const machine = guest(t, system, COUNT);
  machine.write(second, Buffer.from([...written.flatMap((page) => store(page + 8, 1)), ...HLT]));
  machine.dirtyLog(0);
  // KVM may map a page for writing, and so count it, when it is first read: what runs has to be mapped before.
  machine.start();
  await until(() => counter(machine) > 0n);
  machine.pause();
  machine.dirtyLog(0);
  const registers = machine.vcpuState(0, "regs");
  registers.writeBigUInt64LE(BigInt(second), 16 * 8);
  machine.setVcpuState(0, "regs", registers);
  machine.resume();
  t.is((await ending(machine))?.kind, "halt");
  const pages = (log: Buffer): number[] => Array.from({ length: MEMORY / PAGE }, (_, i) => i).filter((i) => ((log[i >> 3] ?? 0) >> (i & 7)) & 1);
  const dirty = pages(machine.dirtyLog(0));
  // The walk through the page tables marks them accessed, which is a write, too.
  const { address, bytes } = pageTables();
  const isTable = (page: number): boolean => page * PAGE >= address && page * PAGE < address + bytes.length;
  t.deepEqual(
    dirty.filter((page) => !isTable(page)),
    written.map((page) => page / PAGE),
  );
  t.deepEqual(pages(machine.dirtyLog(0)), []);
  t.regex(thrown(() => machine.dirtyLog(PAGE)).message, /no memory slot/);
});

const VCPU_PARTS: readonly VcpuStatePart[] = ["regs", "sregs", "fpu", "xsave", "xcrs", "lapic", "events", "debugregs", "mp_state"];
const MACHINE_PARTS: readonly MachineStatePart[] = ["pic-master", "pic-slave", "ioapic"];

kvmTest("every part of the state is what it was set to", (t, system) => {
  const machine = guest(t, system, HLT, { irqchip: true });
  machine.setCpuid(0, system.supportedCpuid());
  for (const part of VCPU_PARTS) {
    const before = machine.vcpuState(0, part);
    machine.setVcpuState(0, part, before);
    t.deepEqual(machine.vcpuState(0, part), before, part);
    t.regex(thrown(() => machine.setVcpuState(0, part, before.subarray(1))).message, /wrong size/);
    t.regex(thrown(() => machine.setVcpuState(0, part, Buffer.concat([before, before]))).message, /wrong size/);
  }
  const set = (part: VcpuStatePart, at: number, value: number): void => {
    const bytes = machine.vcpuState(0, part);
    bytes[at] = value;
    machine.setVcpuState(0, part, bytes);
    t.is(machine.vcpuState(0, part)[at], value, part);
  };
  set("regs", 0, 0x77);
  set("fpu", 3, 0x55); // a byte of the first register
  set("debugregs", 0, 0x40); // db[0]
  set("lapic", 0x3e0, 0xb); // the timer's divisor
  for (const part of MACHINE_PARTS) {
    const before = machine.state(part);
    machine.setState(part, before);
    t.deepEqual(machine.state(part), before, part);
    t.regex(thrown(() => machine.setState(part, before.subarray(1))).message, /wrong size/);
  }
  t.regex(thrown(() => machine.setState("ioapic", machine.state("pic-slave"))).message, /another/);
});

kvmTest("the XSAVE area is as large as the guest may need, not as the first request for it was", (t, system) => {
  const machine = guest(t, system, HLT);
  machine.setCpuid(0, system.supportedCpuid());
  const asked = system.capability(KVM_CAP_XSAVE2);
  const area = machine.vcpuState(0, "xsave");
  t.is(area.length, asked === 0 ? PAGE : asked);
  t.true(area.length >= PAGE);
  if (area.length === PAGE) t.log("this host's guests need no more than 4096 bytes");
  // The legacy region after a reset: control word and MXCSR (SDM vol. 1 §13.4.1).
  t.is(area.readUInt16LE(0), 0x37f);
  t.is(area.readUInt32LE(24), 0x1f80);
  area[512] = 3; // XSTATE_BV: x87 and SSE are in use
  area[160] = 0x66; // a byte of the first SSE register
  machine.setVcpuState(0, "xsave", area);
  t.is(machine.vcpuState(0, "xsave")[160], 0x66);
  const last = Buffer.concat([area, Buffer.alloc(1)]);
  t.regex(thrown(() => machine.setVcpuState(0, "xsave", last)).message, /wrong size/);
  t.regex(thrown(() => machine.setVcpuState(0, "xsave", area.subarray(0, area.length - 64))).message, /wrong size/);
});

kvmTest("the clock and model-specific registers", (t, system) => {
  const machine = guest(t, system, HLT);
  const clock = machine.state("clock");
  clock.writeBigUInt64LE(123_000_000_000n, 0);
  clock.writeUInt32LE(0, 8); // flags of the answer are not for setting
  machine.setState("clock", clock);
  const now = machine.state("clock").readBigUInt64LE(0);
  t.true(now >= 123_000_000_000n && now < 183_000_000_000n, String(now));

  t.true(system.msrIndices().length > 10);
  const SYSENTER_CS = 0x174;
  const entries = (...list: (readonly [number, bigint])[]): Buffer => {
    const bytes = Buffer.alloc(list.length * 16);
    list.forEach(([index, value], i) => {
      bytes.writeUInt32LE(index, i * 16);
      bytes.writeBigUInt64LE(value, i * 16 + 8);
    });
    return bytes;
  };
  t.is(machine.setMsrs(0, entries([SYSENTER_CS, 0x1234n])), 1);
  t.is(machine.msrs(0, entries([SYSENTER_CS, 0n])).readBigUInt64LE(8), 0x1234n);
  t.is(machine.setMsrs(0, entries([SYSENTER_CS, 1n], [0xdead_beef, 1n], [SYSENTER_CS, 2n])), 1, "up to the one that is refused");
  t.is(machine.msrs(0, entries([SYSENTER_CS, 0n], [0xdead_beef, 0n])).length, 16);
  t.regex(thrown(() => machine.msrs(0, Buffer.alloc(15))).message, /whole number/);
});

kvmTest("a request that fails is named with its errno", (t, system) => {
  const machine = guest(t, system, HLT, { irqchip: true });
  const bad = machine.vcpuState(0, "sregs");
  bad.writeBigUInt64LE(0n, 240); // cr3 is right, but long mode with protection off is none
  bad.writeBigUInt64LE(1n << 31n, 224);
  const cases: [() => unknown, string, string][] = [
    [() => machine.createIrqchip(), "KVM_SET_IDENTITY_MAP_ADDR", "EINVAL"], // there is a vCPU already,
    [() => machine.addMemory(PAGE, PAGE), "KVM_SET_USER_MEMORY_REGION", "EEXIST"],
    [() => machine.addMemory(FILE + 1, PAGE), "KVM_SET_USER_MEMORY_REGION", "EINVAL"],
    [() => machine.addMemory(FILE, 0), "mmap guest memory", "EINVAL"],
    [() => machine.addMemory(FILE, 2 ** 52), "mmap guest memory", "ENOMEM"],
    [() => machine.setVcpuState(0, "sregs", bad), "KVM_SET_SREGS", "EINVAL"],
    [() => machine.setCpuid(0, Buffer.alloc(300 * 40)), "KVM_SET_CPUID2", "E2BIG"],
    [() => machine.msrs(0, Buffer.alloc(1000 * 16)), "KVM_GET_MSRS", "E2BIG"],
    [() => machine.load(0, 100_000, 0, 10), "pread", "EBADF"],
    [() => machine.addFile(FILE, "/nonexistent/file", PAGE), "open /nonexistent/file", "ENOENT"],
    [() => native().openKvm("/nonexistent/kvm"), "open /nonexistent/kvm", "ENOENT"],
    [() => native().openKvm("/dev/null").apiVersion, "KVM_GET_API_VERSION", "ENOTTY"],
    [() => native().openKvm("/dev/null").createMachine(), "KVM_CREATE_VM", "ENOTTY"],
  ];
  for (const [body, syscall, code] of cases) {
    const error = thrown(body, `${syscall} with ${code}`);
    t.true(error.syscall?.startsWith(syscall), `${syscall}: ${error.syscall}: ${error.message}`);
    t.true(error.code?.startsWith(code), `${syscall}: ${error.message}`);
  }
  const without = system.createMachine();
  t.teardown(() => without.close());
  without.createVcpu();
  t.is(thrown(() => without.state("ioapic")).syscall, "KVM_GET_IRQCHIP");
  t.is(thrown(() => without.vcpuState(0, "lapic")).syscall, "KVM_GET_LAPIC");
});

kvmTest("memory: ranges, files and what is refused", (t, system) => {
  const machine = guest(t, system, HLT);
  machine.write(0x8000, Buffer.from("hello"));
  t.is(machine.read(0x8000, 5).toString(), "hello");
  t.is(machine.read(MEMORY - 1, 1).length, 1);
  t.is(machine.read(0, 0).length, 0);
  for (const body of [
    () => machine.read(MEMORY - 1, 2),
    () => machine.read(MEMORY, 1),
    () => machine.read(0, Number.MAX_SAFE_INTEGER),
    () => machine.write(MEMORY - 2, Buffer.from("abc")),
    () => machine.read(FILE, 1),
  ]) {
    t.regex(thrown(body).message, /no such range/);
  }
  const file = join(temporaryFolder(t), "kernel");
  writeFileSync(file, "0123456789");
  const fd = openSync(file, "r");
  t.teardown(() => closeSync(fd));
  machine.load(0x9000, fd, 2, 5);
  t.is(machine.read(0x9000, 6).toString("latin1"), "23456\0");
  t.regex(thrown(() => machine.load(0x9000, fd, 8, 5)).message, /ends early/);
  t.regex(thrown(() => machine.addFile(FILE, file, 5)).message, /larger than its place/);
  writeFileSync(file, "");
  t.regex(thrown(() => machine.addFile(FILE, file, PAGE)).message, /no bytes/);
});

kvmTest("what is closed says so, and may be closed again", async (t, system) => {
  const machine = guest(t, system, COUNT);
  machine.start();
  await until(() => counter(machine) > 0n);
  machine.close();
  machine.close();
  const calls = [
    () => machine.read(0, 1),
    () => machine.start(),
    () => machine.pause(),
    () => machine.resume(),
    () => machine.exits(),
    () => machine.statistics(),
    () => machine.vcpuState(0, "regs"),
    () => machine.state("clock"),
    () => machine.createVcpu(),
    () => machine.addMemory(0, PAGE),
    () => machine.attach(0, native().createRng()),
  ];
  for (const call of calls) t.regex(thrown(call).message, /machine is closed/);
  t.is(await Promise.race([machine.ended, sleep(50, "pending")]), "pending");

  const other = native().openKvm("/dev/kvm");
  const outlives = other.createMachine();
  other.close();
  other.close();
  t.regex(thrown(() => other.createMachine()).message, /closed/);
  t.regex(thrown(() => other.apiVersion).message, /closed/);
  outlives.addMemory(0, PAGE);
  outlives.close();
});

kvmTest("devices: one slot each, and the machine may go before or after them", (t, system) => {
  const machine = guest(t, system, HLT, { irqchip: true });
  const slots = [machine.addSlot(SLOT, LINE), machine.addSlot(SLOT + PAGE, LINE + 1)];
  t.deepEqual(slots, [0, 1]);
  t.regex(thrown(() => machine.addSlot(SLOT, LINE + 2)).message, /overlaps/);
  t.regex(thrown(() => machine.addMemory(FILE, PAGE)).message, /before devices/);
  const device = native().createRng();
  machine.attach(0, device);
  t.regex(thrown(() => machine.attach(1, device)).message, /in a slot already/);
  t.regex(thrown(() => machine.attach(0, native().createRng())).message, /has a device/);
  t.regex(thrown(() => machine.attach(2, native().createRng())).message, /no such slot/);
  device.close();
  machine.start();
  machine.attach(1, native().createBalloon());
  machine.close();
});

/** Nothing of it is a number, a string or bytes as wanted; all of it has crashed something somewhere. */
const GARBAGE: readonly unknown[] = [
  undefined,
  null,
  Number.NaN,
  -1,
  1.5,
  2 ** 32,
  2 ** 53,
  Infinity,
  -Infinity,
  "",
  "x\0y",
  {},
  [],
  Symbol("s"),
  1n,
  () => 1,
  true,
];

kvmTest("arguments that mean nothing are refused or harmless, never the process's end", (t, system) => {
  const call = (target: object, name: string, args: unknown[]): void => {
    try {
      (Reflect.get(target, name) as (...all: unknown[]) => unknown).apply(target, args);
    } catch (error) {
      t.true(error instanceof Error, name);
    }
  };
  const machine = guest(t, system, HLT, { irqchip: true });
  machine.addSlot(SLOT, LINE);
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(machine)).filter(
    (name) => !["constructor", "ended", "close", "start", "createVcpu", "addUart"].includes(name),
  );
  t.true(methods.length > 15);
  const detached = new Uint8Array(8);
  structuredClone(detached, { transfer: [detached.buffer] });
  const values = [...GARBAGE, 0, 0x64, "regs", "clock", Buffer.alloc(8), detached, new Float64Array(2), new DataView(new ArrayBuffer(8)), machine, system];
  for (const name of methods) {
    call(machine, name, []);
    for (const value of values) {
      call(machine, name, [value]);
      call(machine, name, [value, value, value, value]);
      call(machine, name, [0, value, 0, 0]);
      call(machine, name, [0, "regs", value]);
      call(machine, name, [0, 0, value, value]);
    }
  }
  for (const value of values) {
    call(system, "capability", [value]);
    call(native(), "openKvm", [value]);
  }
  for (const wrong of [Number.NaN, -1, 1.5, 2 ** 32, "0", undefined]) {
    t.regex(thrown(() => machine.vcpuState(wrong as number, "regs")).message, /not a vCPU/, String(wrong));
  }
  for (const wrong of [Number.NaN, -1, 1.5, 2 ** 53, "0", undefined]) {
    t.regex(thrown(() => machine.read(wrong as number, 1)).message, /not an address/, String(wrong));
  }
  const log = join(temporaryFolder(t), "log");
  t.regex(thrown(() => machine.addUart(0x3f8, 4, `${log}\0more`)).message, /NUL/);
  t.regex(thrown(() => machine.addUart(65536, 4, log)).message, /not a port/);
  t.regex(thrown(() => machine.addUart(0x3f8, -1, log)).message, /not an interrupt line/);
  t.false(existsSync(log));
  t.regex(thrown(() => machine.vcpuState(0, "nonsense" as VcpuStatePart)).message, /no such part/);
  t.regex(thrown(() => machine.setState("nonsense" as MachineStatePart, Buffer.alloc(1))).message, /no such part/);
  t.regex(thrown(() => machine.vcpuState(1, "regs")).message, /no such vCPU/);
});

kvmTest("methods want their own object", (t, system) => {
  const machine = system.createMachine();
  t.teardown(() => machine.close());
  const { read, close } = machine;
  for (const self of [undefined, {}, system, native()]) {
    t.throws(() => Reflect.apply(read, self, [0, 1]));
    t.throws(() => Reflect.apply(close, self, []));
  }
  const empty = Reflect.construct(machine.constructor, []) as KvmMachine;
  t.regex(thrown(() => empty.read(0, 1)).message, /closed/);
  t.is(empty.ended as unknown, undefined);
  t.throws(() => Reflect.construct(system.constructor, []).apiVersion);
});

/** A process whose guest spins, and what ends that process; its exit code. */
async function spinning(t: ExecutionContext, end: string): Promise<number | null> {
  const script = join(temporaryFolder(t), "spin.ts");
  const from = (file: string): string => JSON.stringify(join(repository, file));
  writeFileSync(
    script,
    `import { native } from ${from("src/native.ts")};
     import { bootRegisters, bootSpecialRegisters, descriptorTable, pageTables } from ${from("src/vmm/arch/x86_64/registers.ts")};
     const machine = native().openKvm("/dev/kvm").createMachine();
     machine.addMemory(0, ${MEMORY});
     for (const { address, bytes } of [descriptorTable(), pageTables()]) machine.write(address, bytes);
     machine.write(${PROGRAM}, Buffer.from([0xeb, 0xfe]));
     machine.createVcpu();
     machine.setVcpuState(0, "sregs", bootSpecialRegisters(machine.vcpuState(0, "sregs")));
     machine.setVcpuState(0, "regs", bootRegisters(${PROGRAM}));
     machine.start();
     await new Promise((done) => setTimeout(done, 50));
     ${end}`,
  );
  const { code } = await runProgram(process.execPath, [script], { timeout: LIMIT_MS });
  return code;
}

kvmTest("a process ends while its guest spins, whatever ends it", async (t) => {
  t.is(await spinning(t, "process.exit(7);"), 7);
  t.is(await spinning(t, ""), 0);
  t.is(await spinning(t, "await new Promise(() => {});"), 13);
  t.is(await spinning(t, "machine.close();"), 0);
});

kvmTest("machines are made however many signals their process gets meanwhile", async (t) => {
  const script = join(temporaryFolder(t), "signals.ts");
  writeFileSync(
    script,
    `import { Worker } from "node:worker_threads";
     import { native } from ${JSON.stringify(join(repository, "src/native.ts"))};
     let heard = 0;
     process.on("SIGUSR2", () => heard++);
     const ready = new Int32Array(new SharedArrayBuffer(4));
     const sender = new Worker('const { workerData } = require("node:worker_threads"); for (;;) { process.kill(process.pid, "SIGUSR2"); Atomics.add(workerData, 0, 1); }', {
       eval: true,
       workerData: ready,
     });
     while (Atomics.load(ready, 0) < 100) await new Promise((done) => setTimeout(done, 1));
     const system = native().openKvm("/dev/kvm");
     for (let count = 0; count < 200; count++) system.createMachine().close();
     await sender.terminate();
     await new Promise((done) => setTimeout(done, 1));
     console.log(heard > 0 ? "made" : "no signals");
     process.exit(0);`,
  );
  const { code, stdout, stderr } = await runProgram(process.execPath, [script], { timeout: LIMIT_MS });
  t.is(code, 0, stderr);
  t.is(stdout, "made\n");
});
