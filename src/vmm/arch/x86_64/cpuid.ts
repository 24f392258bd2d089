/**
 * What a guest sees of its CPU. Of all that KVM could show (KVM_GET_SUPPORTED_CPUID) only the leaves below pass, with the bits
 * below cleared: a leaf that is not named here does not exist for the guest, so a new host feature is a decision, not a surprise.
 */

export interface CpuidEntry {
  readonly leaf: number;
  readonly index: number;
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

type Register = "eax" | "ebx" | "ecx" | "edx";
const REGISTERS: readonly Register[] = ["eax", "ebx", "ecx", "edx"];
const ENTRY_BYTES = 40;

interface AllowedLeaf {
  readonly what: string;
  /** Bits that are not shown. */
  readonly hidden?: Partial<Record<Register, readonly number[]>>;
}

/** Leaf 1, ECX. */
const MONITOR = 3;
const VMX = 5;
const SMX = 6;
const SPEEDSTEP = 7;
const THERMAL_MONITOR_2 = 8;
const PERFMON_CAPABILITIES = 15;
const DIRECT_CACHE_ACCESS = 18;
const X2APIC = 21;
const TSC_DEADLINE = 24;
const HYPERVISOR = 31;
/** Leaf 1, EDX. */
const MACHINE_CHECK_EXCEPTION = 7;
const MTRR = 12;
const MACHINE_CHECK = 14;
const DEBUG_STORE = 21;
const ACPI_THERMAL = 22;
const HYPER_THREADING = 28;
const THERMAL_MONITOR = 29;
/** Leaf 7, EBX: what speaks to hardware that a guest does not have. */
const SGX = 2;
const RESOURCE_MONITORING = 12;
const RESOURCE_ALLOCATION = 15;
const PROCESSOR_TRACE = 25;
/** Leaf 0x80000001, ECX. */
const SVM = 2;
const EXTENDED_APIC_SPACE = 3;
const INSTRUCTION_SAMPLING = 10;
const SKINIT = 12;
const WATCHDOG = 13;
const CORE_COUNTERS = 23;
const NB_COUNTERS = 24;

/** kvm_cpuid_entry2.flags: the leaf has sub-leaves. */
const SIGNIFICANT_INDEX = 1;
const LEVEL_CORE = 2;
const LEVEL_THREAD = 1;

/** No machine checks: nothing would ever report one. */
const NO_HARDWARE_REPORTS = [MACHINE_CHECK_EXCEPTION, MTRR, MACHINE_CHECK, DEBUG_STORE, ACPI_THERMAL, THERMAL_MONITOR];

const ALLOWED: ReadonlyMap<number, AllowedLeaf> = new Map<number, AllowedLeaf>([
  [0x0, { what: "vendor and highest leaf" }],
  [
    0x1,
    {
      what: "family, model and features",
      hidden: {
        ecx: [MONITOR, VMX, SMX, SPEEDSTEP, THERMAL_MONITOR_2, PERFMON_CAPABILITIES, DIRECT_CACHE_ACCESS],
        edx: NO_HARDWARE_REPORTS,
      },
    },
  ],
  [0x2, { what: "cache descriptors (Intel)" }],
  [0x4, { what: "caches (Intel)" }],
  [0x6, { what: "APIC timer that never stops" }],
  [0x7, { what: "structured features", hidden: { ebx: [SGX, RESOURCE_MONITORING, RESOURCE_ALLOCATION, PROCESSOR_TRACE] } }],
  [0xb, { what: "topology" }],
  [0xd, { what: "extended state" }],
  [0x15, { what: "time stamp counter's ratio" }],
  [0x16, { what: "frequencies" }],
  [0x1d, { what: "tiles" }],
  [0x1e, { what: "tile multiplication" }],
  [0x4000_0000, { what: "KVM's signature" }],
  [0x4000_0001, { what: "KVM's paravirtual features" }],
  [0x8000_0000, { what: "highest extended leaf" }],
  [
    0x8000_0001,
    {
      what: "extended features",
      hidden: {
        ecx: [SVM, EXTENDED_APIC_SPACE, INSTRUCTION_SAMPLING, SKINIT, WATCHDOG, CORE_COUNTERS, NB_COUNTERS],
        edx: [MACHINE_CHECK_EXCEPTION, MTRR, MACHINE_CHECK],
      },
    },
  ],
  [0x8000_0002, { what: "name" }],
  [0x8000_0003, { what: "name" }],
  [0x8000_0004, { what: "name" }],
  [0x8000_0005, { what: "first-level caches (AMD)" }],
  [0x8000_0006, { what: "second-level cache, its line size" }],
  [0x8000_0007, { what: "time stamp counter that never stops" }],
  [0x8000_0008, { what: "address sizes and speculation controls" }],
  [0x8000_001d, { what: "caches (AMD)" }],
  [0x8000_001e, { what: "topology (AMD)" }],
  [0x8000_0021, { what: "speculation features (AMD)" }],
]);

/** kvm_cpuid_entry2[] to entries. */
export function parseCpuid(bytes: Buffer): CpuidEntry[] {
  return Array.from({ length: Math.floor(bytes.length / ENTRY_BYTES) }, (_, i) => {
    const field = (n: number): number => bytes.readUInt32LE(i * ENTRY_BYTES + n * 4);
    return { leaf: field(0), index: field(1), flags: field(2), eax: field(3), ebx: field(4), ecx: field(5), edx: field(6) };
  });
}

export function encodeCpuid(entries: readonly CpuidEntry[]): Buffer {
  const out = Buffer.alloc(entries.length * ENTRY_BYTES);
  entries.forEach(({ leaf, index, flags, eax, ebx, ecx, edx }, i) => {
    [leaf, index, flags, eax, ebx, ecx, edx].forEach((value, n) => void out.writeUInt32LE(value >>> 0, i * ENTRY_BYTES + n * 4));
  });
  return out;
}

export interface VcpuPlace {
  readonly id: number;
  readonly count: number;
  readonly tscDeadline: boolean;
}

/** What one vCPU shows. */
export function guestCpuid(supported: readonly CpuidEntry[], vcpu: VcpuPlace): CpuidEntry[] {
  const out = supported.filter(({ leaf }) => ALLOWED.has(leaf) && leaf !== 0xb).map((entry) => place(hide(entry), vcpu));
  return supported.some(({ leaf }) => leaf === 0xb) ? [...out, ...topology(vcpu)] : out;
}

function hide(entry: CpuidEntry): CpuidEntry {
  const hidden = ALLOWED.get(entry.leaf)?.hidden ?? {};
  const kept = Object.fromEntries(REGISTERS.map((register) => [register, clear(entry[register], hidden[register] ?? [])]));
  return { ...entry, ...kept };
}

/** Where this vCPU is among the others, and that it is virtual. */
function place(entry: CpuidEntry, { id, count, tscDeadline }: VcpuPlace): CpuidEntry {
  switch (entry.leaf) {
    case 0x1: {
      // EBX: APIC id, number of ids, and CLFLUSH's line size, without which a kernel has caches of no lines.
      const ebx = (entry.ebx & 0xffff) | (count << 16) | (id << 24);
      const ecx = set(entry.ecx, [HYPERVISOR, X2APIC, ...(tscDeadline ? [TSC_DEADLINE] : [])]);
      return { ...entry, ebx, ecx, edx: count > 1 ? set(entry.edx, [HYPER_THREADING]) : clear(entry.edx, [HYPER_THREADING]) };
    }
    case 0x4:
      // EAX bits 31-26: cores of the package less one; 25-14: threads that share the cache less one.
      return (entry.eax & 0x1f) === 0 ? entry : { ...entry, eax: (entry.eax & 0x3fff) | (Math.min(count - 1, 63) << 26) };
    case 0x8000_0008:
      return { ...entry, ecx: count - 1 };
    case 0x8000_001d:
      return { ...entry, eax: entry.eax & 0x3fff };
    case 0x8000_001e:
      return { ...entry, eax: id, ebx: id, ecx: 0 };
    default:
      return entry;
  }
}

/** Every vCPU a core of one package. */
function topology({ id, count }: VcpuPlace): CpuidEntry[] {
  const bits = Math.ceil(Math.log2(count));
  const level = (index: number, type: number, shift: number, units: number): CpuidEntry => ({
    ...{ leaf: 0xb, index, flags: SIGNIFICANT_INDEX },
    ...{ eax: shift, ebx: units, ecx: index | (type << 8), edx: id },
  });
  return [level(0, LEVEL_THREAD, 0, 1), level(1, LEVEL_CORE, bits, count), level(2, 0, 0, 0)];
}

function set(value: number, bits: readonly number[]): number {
  return bits.reduce((out, bit) => out | (1 << bit), value);
}

function clear(value: number, bits: readonly number[]): number {
  return bits.reduce((out, bit) => out & ~(1 << bit), value);
}
