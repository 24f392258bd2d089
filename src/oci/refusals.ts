/**
 * The fields of config.json that tskata does not apply, each with why: refused by name when a value asks for something, or ignored with a
 * warning. `features` lists both, docs/oci.md has a row for each.
 *
 * A path is written as in an error, "[]" standing for each item of a list.
 */
import { TskataError } from "../base/errors.ts";
import { sayPath } from "../base/schema.ts";

export interface Refusal {
  readonly path: string;
  readonly why: string;
  /** Whether a value asks for something; by default what is not zero, false or empty. */
  readonly asks?: (value: unknown) => boolean;
}

const VERSION_2 = "cgroup v2, which the guest has, has none";
const SECTION = "the container is a Linux one";

/** Go's zero values mean "not given", but an empty object was written on purpose. */
function isGiven(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return value !== undefined && value !== 0 && value !== "" && value !== false;
}

/** -1 is "no limit", which is what there is. */
const isLimit = (value: unknown): boolean => isGiven(value) && value !== -1;

export const REFUSED: readonly Refusal[] = [
  { path: "windows", why: SECTION },
  { path: "solaris", why: SECTION },
  { path: "zos", why: SECTION },
  { path: "vm", why: "the virtual machine is set by tskata's own configuration and annotations" },
  { path: "mounts[].uidMappings", why: "id-mapped mounts" },
  { path: "mounts[].gidMappings", why: "id-mapped mounts" },
  { path: "linux.intelRdt", why: "a virtual machine has no resctrl", asks: (value) => value !== undefined },
  { path: "linux.personality.flags", why: "the specification defines none" },
  { path: "linux.seccomp.listenerPath", why: "seccomp user notification" },
  { path: "linux.seccomp.listenerMetadata", why: "seccomp user notification" },
];

/** Below linux.resources; `update` refuses them, too. */
export const REFUSED_RESOURCES: readonly Refusal[] = [
  { path: "memory.kernel", why: VERSION_2, asks: isLimit },
  { path: "memory.kernelTCP", why: VERSION_2, asks: isLimit },
  { path: "memory.swappiness", why: VERSION_2, asks: (value) => value !== undefined },
  { path: "memory.disableOOMKiller", why: VERSION_2 },
  { path: "memory.useHierarchy", why: "cgroup v2 always counts what is below", asks: (value) => value === false },
  { path: "cpu.realtimeRuntime", why: VERSION_2 },
  { path: "cpu.realtimePeriod", why: VERSION_2 },
  { path: "blockIO.leafWeight", why: VERSION_2 },
  { path: "blockIO.weightDevice", why: "the guest's disk takes no weights" },
  { path: "network.classID", why: VERSION_2 },
  { path: "network.priorities", why: VERSION_2 },
  { path: "rdma", why: "the guest has no RDMA device", asks: (value) => Object.keys(value ?? {}).length > 0 },
];

/** Told in the log: engines on hosts that have these name one for every container. */
export const IGNORED: readonly Refusal[] = [
  { path: "process.apparmorProfile", why: "the guest kernel has no AppArmor" },
  { path: "process.selinuxLabel", why: "the guest kernel has no SELinux" },
  { path: "linux.mountLabel", why: "the guest kernel has no SELinux" },
];

/** Every path of config.json in the first two lists. */
export function refusedPaths(): string[] {
  return [...REFUSED.map(({ path }) => path), ...REFUSED_RESOURCES.map(({ path }) => `linux.resources.${path}`)];
}

/** Throws for the first of `refusals` that `value`, found at `at`, asks for. */
export function refuse(refusals: readonly Refusal[], value: unknown, at: readonly PropertyKey[] = []): void {
  for (const { where, why } of asked(refusals, value, at)) throw new TskataError("unsupported", `${where} is not supported: ${why}`);
}

/** Those of `refusals` that `value` asks for, with the place. */
export function* asked(refusals: readonly Refusal[], value: unknown, at: readonly PropertyKey[] = []): Generator<{ where: string; why: string }> {
  for (const { path, why, asks = isGiven } of refusals) {
    for (const found of valuesAt(value, path.split("."), at)) if (asks(found.value)) yield { where: sayPath(found.path), why };
  }
}

interface Found {
  readonly path: readonly PropertyKey[];
  readonly value: unknown;
}

function valuesAt(value: unknown, steps: readonly string[], path: readonly PropertyKey[]): Found[] {
  const [step, ...rest] = steps;
  if (step === undefined) return [{ path, value }];
  if (typeof value !== "object" || value === null) return [];
  const key = step.replace("[]", "");
  const member = (value as Readonly<Record<string, unknown>>)[key];
  if (!step.endsWith("[]")) return valuesAt(member, rest, [...path, key]);
  return Array.isArray(member) ? member.flatMap((item, index) => valuesAt(item, rest, [...path, key, index])) : [];
}
