/** linux.resources as values of cgroup v2 files (kernel Documentation/admin-guide/cgroup-v2.rst), converted as runc does. */
import { TskataError } from "../../src/base/errors.ts";
import type { BlockIoResources, CpuResources, MemoryResources, Resources } from "../../src/oci/spec.ts";

/** One write to a file of the cgroup. */
export interface CgroupWrite {
  readonly file: string;
  readonly value: string;
}

const DEFAULT_PERIOD = 100_000;

/** The writes, in an order that the kernel takes. Devices are not here: see device-filter.ts. */
export function cgroupWrites(resources: Resources): CgroupWrite[] {
  return [
    ...memoryWrites(resources.memory ?? {}),
    ...cpuWrites(resources.cpu ?? {}),
    ...pidsWrites(resources.pids?.limit),
    ...ioWrites(resources.blockIO ?? {}),
    ...(resources.hugepageLimits ?? []).map(({ pageSize, limit }) => ({ file: `hugetlb.${pageSize}.max`, value: orMax(limit) })),
    ...unifiedWrites(resources.unified ?? {}),
  ];
}

/** Above 2^63 only "no limit" is meant; such a number, rounded by JSON, would overflow to a tiny one in the kernel. */
function orMax(value: number): string {
  return value < 0 || value >= 2 ** 63 ? "max" : String(value);
}

function memoryWrites({ limit, reservation, swap }: MemoryResources): CgroupWrite[] {
  const writes: CgroupWrite[] = [];
  const swapOnly = swapLimit(limit, swap);
  if (swapOnly !== undefined) writes.push({ file: "memory.swap.max", value: swapOnly });
  if (limit !== undefined && limit !== 0) writes.push({ file: "memory.max", value: orMax(limit) });
  if (reservation !== undefined && reservation !== 0) writes.push({ file: "memory.low", value: orMax(reservation) });
  return writes;
}

/** v1 counts memory and swap together, v2 apart. */
function swapLimit(limit: number | undefined, swap: number | undefined): string | undefined {
  if (swap === undefined || swap === 0) return limit === -1 ? "max" : undefined;
  if (swap < 0) return "max";
  if (limit === undefined || limit <= 0) throw new TskataError("invalid", "unable to set swap limit without memory limit");
  if (swap < limit) throw new TskataError("invalid", "memory+swap limit should be >= memory limit");
  return String(swap - limit);
}

function cpuWrites(cpu: CpuResources): CgroupWrite[] {
  const writes: CgroupWrite[] = [];
  if (cpu.idle !== undefined) writes.push({ file: "cpu.idle", value: String(cpu.idle) });
  // The kernel refuses a weight for an idle cgroup.
  if (cpu.shares !== undefined && cpu.shares !== 0 && cpu.idle !== 1) writes.push({ file: "cpu.weight", value: String(cpuWeight(cpu.shares)) });
  const quota = cpu.quota ?? 0;
  const period = cpu.period ?? 0;
  if (quota !== 0 || period !== 0) writes.push({ file: "cpu.max", value: `${quota > 0 ? quota : "max"} ${period || DEFAULT_PERIOD}` });
  if (cpu.burst !== undefined) writes.push({ file: "cpu.max.burst", value: String(cpu.burst) });
  if (cpu.cpus !== undefined && cpu.cpus !== "") writes.push({ file: "cpuset.cpus", value: cpu.cpus });
  if (cpu.mems !== undefined && cpu.mems !== "") writes.push({ file: "cpuset.mems", value: cpu.mems });
  return writes;
}

/** Shares [2, 262144] onto weights [1, 10000], as runc and crun. */
export function cpuWeight(shares: number): number {
  const bounded = Math.min(Math.max(shares, 2), 262_144);
  return 1 + Math.floor(((bounded - 2) * 9999) / 262_142);
}

function pidsWrites(limit: number | undefined): CgroupWrite[] {
  if (limit === undefined || limit === 0) return [];
  return [{ file: "pids.max", value: orMax(limit) }];
}

function ioWrites(io: BlockIoResources): CgroupWrite[] {
  const writes: CgroupWrite[] = [];
  if (io.weight !== undefined && io.weight !== 0) writes.push({ file: "io.weight", value: `default ${ioWeight(io.weight)}` });
  const throttles = [
    ["rbps", io.throttleReadBpsDevice],
    ["wbps", io.throttleWriteBpsDevice],
    ["riops", io.throttleReadIOPSDevice],
    ["wiops", io.throttleWriteIOPSDevice],
  ] as const;
  for (const [key, devices] of throttles) {
    for (const { major, minor, rate } of devices ?? []) writes.push({ file: "io.max", value: `${major}:${minor} ${key}=${rate === 0 ? "max" : orMax(rate)}` });
  }
  return writes;
}

/** v1's [10, 1000] onto v2's [1, 10000]. */
function ioWeight(weight: number): number {
  return 1 + Math.floor(((weight - 10) * 9999) / 990);
}

function unifiedWrites(unified: Readonly<Record<string, string>>): CgroupWrite[] {
  return Object.entries(unified).map(([file, value]) => {
    if (!/^[a-z][\w.]*\.[\w.]+$/.test(file) || file.startsWith("cgroup."))
      throw new TskataError("invalid", `unified resource "${file}" must be a file of a controller`);
    return { file, value };
  });
}
