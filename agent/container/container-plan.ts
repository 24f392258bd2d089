/** From an OCI config to the plan of a container's init, and to that of a process exec'ed in it. */
import { TskataError } from "../../src/base/errors.ts";
import { OCI_VERSION } from "../../src/base/version.ts";
import type { Device, Hook, IdMapping, Linux, Process, Spec } from "../../src/oci/spec.ts";
import { sysctlPath } from "../../src/oci/sysctl.ts";
import { planMount, rootPropagation } from "./mount-options.ts";
import type { Plan, PlanDevice, PlanHook } from "./plan.ts";
import { planSeccomp, processPart } from "./process-plan.ts";
import { UserDatabase } from "./user.ts";

/** CLONE_NEW* (linux/sched.h) and the names in /proc/<pid>/ns. */
const NAMESPACES: Readonly<Record<string, { readonly flag: number; readonly file: string }>> = {
  user: { flag: 0x1000_0000, file: "user" },
  mount: { flag: 0x0002_0000, file: "mnt" },
  cgroup: { flag: 0x0200_0000, file: "cgroup" },
  uts: { flag: 0x0400_0000, file: "uts" },
  ipc: { flag: 0x0800_0000, file: "ipc" },
  pid: { flag: 0x2000_0000, file: "pid" },
  network: { flag: 0x4000_0000, file: "net" },
  time: { flag: 0x80, file: "time" },
};

export interface ContainerPlanOptions {
  readonly id: string;
  readonly spec: Spec;
  readonly cgroup: string;
  /** Namespace type to the pid of the pod's process whose namespace is joined. */
  readonly sharedPids: ReadonlyMap<string, number>;
  readonly noPivot: boolean;
  readonly newKeyring: boolean;
  /** The bundle's folder on the host, for hooks. */
  readonly bundle: string;
}

export function containerPlan(options: ContainerPlanOptions): Plan {
  const { spec } = options;
  const linux = spec.linux ?? {};
  const process = requireProcess(spec);
  const rootfs = spec.root?.path ?? "";
  return {
    ...processPart(process, new UserDatabase(rootfs)),
    container: true,
    noPivot: options.noPivot,
    newKeyring: options.newKeyring,
    rootReadonly: spec.root?.readonly ?? false,
    newNamespaces: newNamespaces(linux, options.sharedPids),
    cgroup: options.cgroup,
    cgroupOf: 0,
    initialCpus: [],
    finalCpus: [],
    joins: [...options.sharedPids].map(([type, pid]) => ({ type: flagOf(type), path: `/proc/${pid}/ns/${NAMESPACES[type]?.file}` })),
    uidMap: mapText(linux.uidMappings),
    gidMap: mapText(linux.gidMappings),
    timeOffsets: offsetsText(linux.timeOffsets),
    hostname: spec.hostname ?? "",
    domainname: spec.domainname ?? "",
    rootfs,
    rootfsPropagation: rootPropagation(linux.rootfsPropagation),
    mounts: (spec.mounts ?? []).map(planMount),
    devices: hasOwnDev(spec) ? (linux.devices ?? []).map(planDevice) : planDevices(linux.devices ?? []),
    links: hasOwnDev(spec) ? [] : DEV_LINKS,
    sysctls: Object.entries(linux.sysctl ?? {}).map(([name, value]) => [sysctlPath(name), value]),
    maskedPaths: linux.maskedPaths ?? [],
    readonlyPaths: linux.readonlyPaths ?? [],
    personality: planPersonality(linux.personality),
    seccomp: planSeccomp(linux.seccomp),
    startHooks: (spec.hooks?.startContainer ?? []).map(planHook),
    hookState: hookState(options),
  };
}

export interface ExecPlanOptions {
  readonly spec: Spec;
  readonly process: Process;
  /** The container's folder. */
  readonly cgroup: string;
  /** A cgroup below that; "": the init's. */
  readonly subCgroup: string;
  /** The container's init, whose namespaces are joined. */
  readonly init: number;
}

/** Order matters: the user namespace gives the rights over the others, the mount namespace takes the guest's /proc away. */
const JOIN_ORDER = ["user", "cgroup", "ipc", "uts", "pid", "time", "mount"];

export function execPlan({ spec, process, cgroup, subCgroup, init }: ExecPlanOptions): Plan {
  const linux = spec.linux ?? {};
  const own = new Set((linux.namespaces ?? []).map(({ type }) => type as string));
  return {
    ...processPart(process, new UserDatabase(`/proc/${init}/root`)),
    container: false,
    noPivot: false,
    newKeyring: true,
    rootReadonly: false,
    newNamespaces: 0,
    cgroup: below(cgroup, subCgroup),
    cgroupOf: subCgroup === "" ? init : 0,
    initialCpus: cpuList(process.execCPUAffinity?.initial, "initial"),
    finalCpus: cpuList(process.execCPUAffinity?.final, "final"),
    joins: JOIN_ORDER.filter((type) => own.has(type)).map((type) => ({ type: flagOf(type), path: `/proc/${init}/ns/${NAMESPACES[type]?.file}` })),
    uidMap: "",
    gidMap: "",
    timeOffsets: "",
    hostname: "",
    domainname: "",
    rootfs: "",
    rootfsPropagation: 0,
    mounts: [],
    devices: [],
    links: [],
    sysctls: [],
    maskedPaths: [],
    readonlyPaths: [],
    personality: planPersonality(linux.personality),
    seccomp: planSeccomp(linux.seccomp),
    startHooks: [],
    hookState: "",
  };
}

function below(cgroup: string, subCgroup: string): string {
  const inside = subCgroup.split("/").filter((part) => part !== "" && part !== ".");
  if (inside.includes("..")) throw new TskataError("invalid", `sub cgroup "${subCgroup}" leaves the container's cgroup`);
  return [cgroup, ...inside].join("/");
}

function requireProcess(spec: Spec): Process {
  if (spec.process === undefined) throw new TskataError("invalid", "process property must not be empty");
  return spec.process;
}

function flagOf(type: string): number {
  const namespace = NAMESPACES[type];
  if (namespace === undefined) throw new TskataError("invalid", `unknown namespace type "${type}"`);
  return namespace.flag;
}

function newNamespaces(linux: Linux, shared: ReadonlyMap<string, number>): number {
  const types = (linux.namespaces ?? []).map(({ type }) => type).filter((type) => !shared.has(type));
  return types.reduce((flags, type) => flags | flagOf(type), 0) >>> 0;
}

function mapText(mappings: readonly IdMapping[] | undefined): string {
  return (mappings ?? []).map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}\n`).join("");
}

function offsetsText(offsets: Linux["timeOffsets"]): string {
  const line = (clock: "monotonic" | "boottime"): string => {
    const { secs = 0, nanosecs = 0 } = offsets?.[clock] ?? {};
    return offsets?.[clock] === undefined ? "" : `${clock} ${secs} ${nanosecs}\n`;
  };
  return line("monotonic") + line("boottime");
}

function planPersonality(personality: Linux["personality"]): number | undefined {
  if (personality === undefined) return undefined;
  return personality.domain === "LINUX32" ? 8 : 0;
}

/** What a cpu_set_t of the launcher holds. */
const MAX_CPUS = 1024;

/** "0-3,7" (cpuset(7) "List format") as numbers. */
function cpuList(text: string | undefined, field: string): number[] {
  const found = new Set<number>();
  for (const part of (text ?? "").split(",").filter((each) => each !== "")) {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part);
    const [first, last] = [Number(range?.[1]), Number(range?.[2] ?? range?.[1])];
    if (range === null || first > last || last >= MAX_CPUS) throw new TskataError("invalid", `process.execCPUAffinity.${field}: "${text}" is no list of CPUs`);
    for (let cpu = first; cpu <= last; cpu++) found.add(cpu);
  }
  return [...found];
}

// -- /dev ------------------------------------------------------------------------------------------------------------------

/** config-linux.md "Default Devices" and "/dev symbolic links". */
const DEV_LINKS: Plan["links"] = [
  ["/dev/fd", "/proc/self/fd"],
  ["/dev/stdin", "/proc/self/fd/0"],
  ["/dev/stdout", "/proc/self/fd/1"],
  ["/dev/stderr", "/proc/self/fd/2"],
  ["/dev/core", "/proc/kcore"],
  ["/dev/ptmx", "pts/ptmx"],
];
const CHARACTER = 0o020000;
const DEFAULT_DEVICES: readonly PlanDevice[] = (
  [
    ["null", 1, 3],
    ["zero", 1, 5],
    ["full", 1, 7],
    ["random", 1, 8],
    ["urandom", 1, 9],
    ["tty", 5, 0],
  ] as const
).map(([name, major, minor]) => ({ path: `/dev/${name}`, mode: CHARACTER | 0o666, major, minor, uid: 0, gid: 0 }));

/** A /dev of the caller's is left as it is. */
function hasOwnDev(spec: Spec): boolean {
  return (spec.mounts ?? []).some(
    ({ destination, type, options = [] }) => /^\/dev\/*$/.test(destination) && (type === "bind" || options.includes("bind") || options.includes("rbind")),
  );
}

function planDevices(devices: readonly Device[]): PlanDevice[] {
  const own = devices.map(planDevice);
  return [...DEFAULT_DEVICES.filter(({ path }) => !own.some((device) => device.path === path)), ...own];
}

const DEVICE_TYPES: Readonly<Record<Device["type"], number>> = { c: CHARACTER, u: CHARACTER, b: 0o060000, p: 0o010000 };

function planDevice(device: Device): PlanDevice {
  const { path, type, major = 0, minor = 0, fileMode = 0o666, uid = 0, gid = 0 } = device;
  return { path, mode: DEVICE_TYPES[type] | (fileMode & 0o7777), major, minor, uid, gid };
}

/** runtime.md "State", as a startContainer hook gets it: `pid` is the init's in the container, where the hook runs. */
function hookState({ id, bundle, spec }: ContainerPlanOptions): string {
  return JSON.stringify({ ociVersion: OCI_VERSION, id, status: "created", pid: 1, bundle, annotations: spec.annotations });
}

function planHook({ path, args = [], env = [], timeout = 0 }: Hook): PlanHook {
  return { path, args, env, timeoutSeconds: timeout };
}
