/** The "data" of `runc events --stats`, in runc's keys, from cgroup v2 files. */
import type { Cgroup } from "./cgroup.ts";

const USEC = 1000;

export function containerStats(cgroup: Cgroup): object {
  return {
    cpu: cpuStats(cgroup),
    memory: memoryStats(cgroup),
    pids: pidsStats(cgroup),
    blkio: ioStats(cgroup),
    hugetlb: hugetlbStats(cgroup),
    intel_rdt: {},
    network_interfaces: null,
  };
}

function cpuStats(cgroup: Cgroup): object {
  const stat = cgroup.keyed("cpu.stat");
  const nanoseconds = (key: string): number => (stat.get(key) ?? 0) * USEC;
  return {
    usage: { total: nanoseconds("usage_usec"), kernel: nanoseconds("system_usec"), user: nanoseconds("user_usec") },
    throttling: { periods: stat.get("nr_periods") ?? 0, throttledPeriods: stat.get("nr_throttled") ?? 0, throttledTime: nanoseconds("throttled_usec") },
  };
}

/** A limit as a number; "max" as v1's largest. */
function limit(text: string): number {
  return text.trim() === "max" || text.trim() === "" ? Number.MAX_SAFE_INTEGER : Number(text.trim());
}

function memoryStats(cgroup: Cgroup): object {
  const stat = cgroup.keyed("memory.stat");
  const usage = cgroup.number("memory.current");
  const swap = cgroup.number("memory.swap.current");
  const failures = cgroup.keyed("memory.events").get("max") ?? 0;
  const most = limit(cgroup.read("memory.max"));
  return {
    cache: stat.get("file") ?? 0,
    usage: { limit: most, usage, max: cgroup.number("memory.peak"), failcnt: failures },
    swap: { limit: limit(cgroup.read("memory.swap.max")), usage: swap + usage, max: 0, failcnt: 0 },
    kernel: { limit: 0, usage: stat.get("kernel") ?? 0, max: 0, failcnt: 0 },
    kernelTCP: { limit: 0, usage: stat.get("sock") ?? 0, max: 0, failcnt: 0 },
    raw: Object.fromEntries(stat),
  };
}

function pidsStats(cgroup: Cgroup): object {
  const most = cgroup.read("pids.max").trim();
  return { current: cgroup.number("pids.current"), ...(most === "max" ? {} : { limit: Number(most) }) };
}

/** By page size. */
function hugetlbStats(cgroup: Cgroup): object {
  const sizes = cgroup.files().flatMap((file) => /^hugetlb\.(\w+)\.current$/.exec(file)?.[1] ?? []);
  return Object.fromEntries(
    sizes.map((size) => [size, { usage: cgroup.number(`hugetlb.${size}.current`), failcnt: cgroup.keyed(`hugetlb.${size}.events`).get("max") ?? 0 }]),
  );
}

const IO_KEYS = [
  ["rbytes", "ioServiceBytesRecursive", "Read"],
  ["wbytes", "ioServiceBytesRecursive", "Write"],
  ["rios", "ioServicedRecursive", "Read"],
  ["wios", "ioServicedRecursive", "Write"],
] as const;

function ioStats(cgroup: Cgroup): object {
  const stats = new Map<string, object[]>();
  for (const line of cgroup.read("io.stat").split("\n")) {
    const [device = "", ...pairs] = line.split(" ");
    const [major, minor] = device.split(":").map(Number);
    const values = new Map(pairs.map((pair) => pair.split("=") as [string, string]));
    for (const [key, name, op] of IO_KEYS) {
      const value = values.get(key);
      if (value !== undefined) stats.set(name, [...(stats.get(name) ?? []), { major, minor, op, value: Number(value) }]);
    }
  }
  return Object.fromEntries(stats);
}
