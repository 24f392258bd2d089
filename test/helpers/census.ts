/**
 * What a pod holds, at the host and in its guest, for tests of what piles up: descriptors, threads, memory, zombies, cgroups. The guest's part is
 * looked up by a container without a pid namespace of its own, which sees the agent as process 1.
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import { family } from "../../scripts/lib/processes.ts";
import { joinPod } from "./pod.ts";
import type { Scratch } from "./tskata.ts";

/** What is counted, by its name: "agent: descriptors". */
export type Census = Readonly<Record<string, number>>;

/** How much of each kind may have come: what a pool has not yet needed, or a garbage collector not yet taken. Memory in KiB. */
const SLACK: Readonly<Record<string, number>> = {
  descriptors: 4,
  threads: 4,
  zombies: 0,
  cgroups: 0,
  entries: 0,
  memory: 32 * 1024,
  "kernel memory": 8 * 1024,
};

export const WATCHER = "watcher";
const SETTLE_MS = 20_000;

/** The container that looks around in the guest of `pod`. */
export async function startWatcher(scratch: Scratch, pod: string): Promise<void> {
  const joined = await joinPod(scratch, pod);
  await scratch.running(WATCHER, (spec) => {
    joined(spec);
    spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== "pid");
    for (const set of ["bounding", "effective", "permitted"]) spec.process.capabilities?.[set]?.push("CAP_SYS_PTRACE", "CAP_SYS_ADMIN");
  });
}

const LOOK = [
  "echo agent: descriptors=$(ls /proc/1/fd | wc -l)",
  "echo agent: threads=$(ls /proc/1/task | wc -l)",
  "echo agent: memory=$(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/1/status)",
  "echo guest: zombies=$(grep -ls '^State:.Z' /proc/[0-9]*/status | wc -l)",
  "echo guest: cgroups=$(find /proc/1/root/sys/fs/cgroup -type d | wc -l)",
  "echo guest: kernel memory=$(sed -n 's/^SUnreclaim:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/meminfo)",
];

export async function takeCensus(scratch: Scratch, pod: string): Promise<Census> {
  const told = await scratch.sh(WATCHER, LOOK.join("; "));
  const census: Record<string, number> = {};
  for (const line of told.split("\n")) {
    const [name = "", value = ""] = line.split("=");
    if (!/^\d+$/.test(value)) throw new Error(`the guest told "${line}"`);
    census[name] = Number(value);
  }
  const { sandboxPid, folder } = scratch.pod(pod);
  for (const pid of family(sandboxPid)) Object.assign(census, processCensus(pid));
  census["pod's folder: entries"] = readdirSync(folder, { recursive: true }).length;
  return census;
}

/** Memory of the hypervisor is the guest's as far as it has been touched, so not counted here. */
function processCensus(pid: number): Census {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1] ?? "";
  const name = field("Name");
  const counts = { [`${name}: descriptors`]: readdirSync(`/proc/${pid}/fd`).length, [`${name}: threads`]: Number(field("Threads")) };
  return name.startsWith("qemu") ? counts : { ...counts, [`${name}: memory`]: Number(field("VmRSS")) };
}

/** What has come since `before` beyond the slack, after what ends by itself has had the time to. */
export async function grownSince(scratch: Scratch, pod: string, before: Census): Promise<{ grown: string[]; now: Census }> {
  for (const end = performance.now() + SETTLE_MS; ; await after(1000)) {
    const now = await takeCensus(scratch, pod);
    const grown = growth(before, now);
    if (grown.length === 0 || performance.now() > end) return { grown, now };
  }
}

export function growth(before: Census, now: Census): string[] {
  return Object.entries(now).flatMap(([name, value]) => {
    const slack = SLACK[name.slice(name.indexOf(": ") + 2)] ?? 0;
    const was = before[name] ?? 0;
    return value > was + slack ? [`${name}: ${was} before, ${value} after`] : [];
  });
}
