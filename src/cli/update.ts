/** `tskata update`. */
import { readFileSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { updateContainer } from "../lifecycle/container.ts";
import { readResources } from "../oci/bundle.ts";
import type { Resources } from "../oci/spec.ts";
import type { FlagSpec, Flags } from "./flags.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

/** Flag to section and key of linux.resources. */
const NUMBERS = {
  "blkio-weight": ["blockIO", "weight", "specifies per cgroup weight, range is from 10 to 1000"],
  "cpu-period": ["cpu", "period", "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default"],
  "cpu-quota": ["cpu", "quota", "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"],
  "cpu-burst": ["cpu", "burst", "CPU CFS hardcap burst limit (in usecs)"],
  "cpu-share": ["cpu", "shares", "CPU shares (relative weight vs. other containers)"],
  "cpu-idle": ["cpu", "idle", "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"],
  memory: ["memory", "limit", "memory limit (in bytes)"],
  "memory-reservation": ["memory", "reservation", "memory reservation or soft_limit (in bytes)"],
  "memory-swap": ["memory", "swap", "total memory usage (memory + swap); set '-1' to enable unlimited swap"],
  "pids-limit": ["pids", "limit", "maximum number of pids allowed in the container"],
} as const;

const TEXTS = { "cpuset-cpus": ["cpu", "cpus", "CPU(s) to use"], "cpuset-mems": ["cpu", "mems", "memory node(s) to use"] } as const;

const REFUSED = {
  "cpu-rt-period": "CPU realtime period: cgroup v2, which the guest has, has none",
  "cpu-rt-runtime": "CPU realtime hardcap: cgroup v2, which the guest has, has none",
  "l3-cache-schema": "Intel RDT is not available in a virtual machine",
  "mem-bw-schema": "Intel RDT is not available in a virtual machine",
} as const;

const flags: FlagSpec[] = [
  { name: "resources", alias: "r", kind: "string", help: "path to the file containing the resources to update or '-' to read from the standard input" },
  ...Object.entries(NUMBERS).map(([name, [, , help]]): FlagSpec => ({ name, kind: "string", help })),
  ...Object.entries(TEXTS).map(([name, [, , help]]): FlagSpec => ({ name, kind: "string", help })),
  ...Object.entries(REFUSED).map(([name, why]): FlagSpec => ({ name, kind: "string", help: `refused: ${why}` })),
];

export const verb: Verb = {
  name: "update",
  summary: "update container resource constraints",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Resources are the linux.resources object of config.json, of which only what changes need be there. With --resources the
other options are ignored. The virtual machine's own size stays.`,
  flags,
  arguments: { least: 1, most: 1 },
  async run({ globals, flags: given, args }) {
    const file = given.string("resources");
    const resources =
      file === undefined ? fromFlags(given) : readResources(readFileSync(file === "-" ? 0 : file, "utf8"), file === "-" ? "standard input" : file);
    await updateContainer(globals.root, args[0] ?? "", resources);
    return 0;
  },
};

function fromFlags(given: Flags): Resources {
  for (const [name, why] of Object.entries(REFUSED)) if (given.has(name)) throw new TskataError("unsupported", `--${name}: ${why}`);
  const resources: Record<string, Record<string, number | string>> = {};
  for (const [name, [section, key]] of Object.entries(NUMBERS)) {
    const text = given.string(name);
    if (text === undefined) continue;
    if (!/^-?\d+$/.test(text)) throw new TskataError("invalid", `invalid value for ${name}: "${text}" is no whole number`);
    resources[section] = { ...resources[section], [key]: Number(text) };
  }
  for (const [name, [section, key]] of Object.entries(TEXTS)) {
    const text = given.string(name);
    if (text !== undefined) resources[section] = { ...resources[section], [key]: text };
  }
  return readResources(JSON.stringify(resources), "the options");
}
