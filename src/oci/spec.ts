/**
 * The OCI runtime-spec configuration (config.json, version 1.2, Linux) as zod schemas, and the types they give.
 *
 * Loose objects throughout: config.md "Extensibility" has runtimes ignore unknown properties, and they are passed on.
 * Go writers emit `null` for an empty slice or pointer and mean "absent"; `parseSpec` drops nulls before it checks.
 * zod/mini because this is loaded on every create and in the guest: the rest of zod costs more than the check itself.
 */
import * as z from "zod/mini";
import { TskataError } from "../base/errors.ts";
import { dropNulls, sayIssues } from "../base/schema.ts";

// -- numbers: JSON gives doubles; beyond 2^53 only "unlimited" values are met, where the rounding does not matter ------
const integer = z.number().check(z.refine(Number.isInteger, "expected a whole number"));
const uint32 = z.int().check(z.minimum(0), z.maximum(0xffff_ffff));
const uint64 = integer.check(z.minimum(0));
const uint16 = z.int().check(z.minimum(0), z.maximum(0xffff));
/** Compared bit by bit by a seccomp filter, so a rounded value would be another rule: refused above 2^53. */
const exactUint64 = z.int().check(z.minimum(0));
const text = z.string();
const texts = z.array(text);
const textMap = z.record(text, text);
const absolutePath = text.check(z.startsWith("/", "expected an absolute path"));

// -- process -----------------------------------------------------------------------------------------------------------
const userSchema = z.looseObject({
  uid: z.optional(uint32),
  gid: z.optional(uint32),
  umask: z.optional(uint32),
  additionalGids: z.optional(z.array(uint32)),
  username: z.optional(text),
});

const capabilitiesSchema = z.looseObject({
  bounding: z.optional(texts),
  effective: z.optional(texts),
  inheritable: z.optional(texts),
  permitted: z.optional(texts),
  ambient: z.optional(texts),
});

const rlimitSchema = z.looseObject({ type: text, hard: uint64, soft: uint64 });

const schedulerSchema = z.looseObject({
  policy: text,
  nice: z.optional(integer),
  priority: z.optional(integer),
  flags: z.optional(texts),
  runtime: z.optional(uint64),
  deadline: z.optional(uint64),
  period: z.optional(uint64),
});

export const processSchema = z.looseObject({
  terminal: z.optional(z.boolean()),
  consoleSize: z.optional(z.looseObject({ height: uint16, width: uint16 })),
  user: z.optional(userSchema),
  args: z.optional(texts),
  env: z.optional(texts),
  cwd: absolutePath,
  capabilities: z.optional(capabilitiesSchema),
  rlimits: z.optional(z.array(rlimitSchema)),
  noNewPrivileges: z.optional(z.boolean()),
  apparmorProfile: z.optional(text),
  oomScoreAdj: z.optional(z.int().check(z.minimum(-1000), z.maximum(1000))),
  scheduler: z.optional(schedulerSchema),
  selinuxLabel: z.optional(text),
  ioPriority: z.optional(z.looseObject({ class: text, priority: z.optional(z.int().check(z.minimum(0), z.maximum(7))) })),
  execCPUAffinity: z.optional(z.looseObject({ initial: z.optional(text), final: z.optional(text) })),
});

// -- mounts, root, hooks -------------------------------------------------------------------------------------------------
const idMappingSchema = z.looseObject({ containerID: uint32, hostID: uint32, size: uint32 });
const idMappings = z.optional(z.array(idMappingSchema));

export const mountSchema = z.looseObject({
  destination: text.check(z.minLength(1, "expected a path")),
  type: z.optional(text),
  source: z.optional(text),
  options: z.optional(texts),
  uidMappings: idMappings,
  gidMappings: idMappings,
});

const hookSchema = z.looseObject({
  path: absolutePath,
  args: z.optional(texts),
  env: z.optional(texts),
  timeout: z.optional(z.int().check(z.positive("expected more than 0 seconds"))),
});
const hookList = z.optional(z.array(hookSchema));

const hooksSchema = z.looseObject({
  prestart: hookList,
  createRuntime: hookList,
  createContainer: hookList,
  startContainer: hookList,
  poststart: hookList,
  poststop: hookList,
});

// -- linux.resources -----------------------------------------------------------------------------------------------------
const deviceRuleSchema = z.looseObject({
  allow: z.boolean(),
  type: z.optional(z.enum(["a", "b", "c", "u", "p", ""])),
  major: z.optional(integer),
  minor: z.optional(integer),
  access: z.optional(text),
});

const memorySchema = z.looseObject({
  limit: z.optional(integer),
  reservation: z.optional(integer),
  swap: z.optional(integer),
  kernel: z.optional(integer),
  kernelTCP: z.optional(integer),
  swappiness: z.optional(uint64),
  disableOOMKiller: z.optional(z.boolean()),
  useHierarchy: z.optional(z.boolean()),
  checkBeforeUpdate: z.optional(z.boolean()),
});

const cpuSchema = z.looseObject({
  shares: z.optional(uint64),
  quota: z.optional(integer),
  burst: z.optional(uint64),
  period: z.optional(uint64),
  realtimeRuntime: z.optional(integer),
  realtimePeriod: z.optional(uint64),
  cpus: z.optional(text),
  mems: z.optional(text),
  idle: z.optional(integer),
});

const weightDeviceSchema = z.looseObject({
  major: integer,
  minor: integer,
  weight: z.optional(uint16),
  leafWeight: z.optional(uint16),
});
const throttleDevices = z.optional(z.array(z.looseObject({ major: integer, minor: integer, rate: uint64 })));

const blockIoSchema = z.looseObject({
  weight: z.optional(uint16),
  leafWeight: z.optional(uint16),
  weightDevice: z.optional(z.array(weightDeviceSchema)),
  throttleReadBpsDevice: throttleDevices,
  throttleWriteBpsDevice: throttleDevices,
  throttleReadIOPSDevice: throttleDevices,
  throttleWriteIOPSDevice: throttleDevices,
});

const networkResourcesSchema = z.looseObject({
  classID: z.optional(uint32),
  priorities: z.optional(z.array(z.looseObject({ name: text, priority: uint32 }))),
});

const rdmaSchema = z.looseObject({ hcaHandles: z.optional(uint32), hcaObjects: z.optional(uint32) });

export const resourcesSchema = z.looseObject({
  devices: z.optional(z.array(deviceRuleSchema)),
  memory: z.optional(memorySchema),
  cpu: z.optional(cpuSchema),
  pids: z.optional(z.looseObject({ limit: z.optional(integer) })),
  blockIO: z.optional(blockIoSchema),
  hugepageLimits: z.optional(z.array(z.looseObject({ pageSize: text, limit: uint64 }))),
  network: z.optional(networkResourcesSchema),
  rdma: z.optional(z.record(text, rdmaSchema)),
  unified: z.optional(textMap),
});

// -- linux.seccomp -------------------------------------------------------------------------------------------------------
const seccompAction = z.enum([
  "SCMP_ACT_KILL",
  "SCMP_ACT_KILL_PROCESS",
  "SCMP_ACT_KILL_THREAD",
  "SCMP_ACT_TRAP",
  "SCMP_ACT_ERRNO",
  "SCMP_ACT_TRACE",
  "SCMP_ACT_ALLOW",
  "SCMP_ACT_LOG",
  "SCMP_ACT_NOTIFY",
]);

const seccompArgumentSchema = z.looseObject({
  index: z.int().check(z.minimum(0), z.maximum(5)),
  value: exactUint64,
  valueTwo: z.optional(exactUint64),
  op: z.enum(["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]),
});

const seccompRuleSchema = z.looseObject({
  names: texts.check(z.minLength(1, "expected at least one system call")),
  action: seccompAction,
  errnoRet: z.optional(uint32),
  args: z.optional(z.array(seccompArgumentSchema)),
});

export const seccompSchema = z.looseObject({
  defaultAction: seccompAction,
  defaultErrnoRet: z.optional(uint32),
  architectures: z.optional(texts),
  flags: z.optional(texts),
  listenerPath: z.optional(text),
  listenerMetadata: z.optional(text),
  syscalls: z.optional(z.array(seccompRuleSchema)),
});

// -- linux ---------------------------------------------------------------------------------------------------------------
const namespaceSchema = z.looseObject({
  type: z.enum(["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]),
  path: z.optional(text),
});

const deviceSchema = z.looseObject({
  path: absolutePath,
  type: z.enum(["c", "b", "u", "p"]),
  major: z.optional(integer),
  minor: z.optional(integer),
  fileMode: z.optional(uint32),
  uid: z.optional(uint32),
  gid: z.optional(uint32),
});

const timeOffset = z.optional(z.looseObject({ secs: z.optional(integer), nanosecs: z.optional(uint32) }));

const linuxSchema = z.looseObject({
  uidMappings: idMappings,
  gidMappings: idMappings,
  sysctl: z.optional(textMap),
  resources: z.optional(resourcesSchema),
  cgroupsPath: z.optional(text),
  namespaces: z.optional(z.array(namespaceSchema)),
  devices: z.optional(z.array(deviceSchema)),
  seccomp: z.optional(seccompSchema),
  rootfsPropagation: z.optional(z.enum(["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable", ""])),
  maskedPaths: z.optional(texts),
  readonlyPaths: z.optional(texts),
  mountLabel: z.optional(text),
  intelRdt: z.optional(
    z.looseObject({
      closID: z.optional(text),
      l3CacheSchema: z.optional(text),
      memBwSchema: z.optional(text),
      enableCMT: z.optional(z.boolean()),
      enableMBM: z.optional(z.boolean()),
    }),
  ),
  personality: z.optional(z.looseObject({ domain: z.enum(["LINUX", "LINUX32"]), flags: z.optional(texts) })),
  timeOffsets: z.optional(z.looseObject({ monotonic: timeOffset, boottime: timeOffset })),
});

export const specSchema = z.looseObject({
  ociVersion: text.check(z.regex(/^\d+\.\d+\.\d+/, 'expected a version such as "1.2.0"')),
  process: z.optional(processSchema),
  root: z.optional(z.looseObject({ path: text.check(z.minLength(1, "expected a path")), readonly: z.optional(z.boolean()) })),
  hostname: z.optional(text),
  domainname: z.optional(text),
  mounts: z.optional(z.array(mountSchema)),
  hooks: z.optional(hooksSchema),
  annotations: z.optional(textMap),
  linux: z.optional(linuxSchema),
  // Of other platforms, and refused (refusals.ts), whatever they hold.
  windows: z.optional(z.unknown()),
  solaris: z.optional(z.unknown()),
  zos: z.optional(z.unknown()),
  vm: z.optional(z.unknown()),
});

export type Spec = z.infer<typeof specSchema>;
export type Process = z.infer<typeof processSchema>;
export type User = z.infer<typeof userSchema>;
export type Capabilities = z.infer<typeof capabilitiesSchema>;
export type Rlimit = z.infer<typeof rlimitSchema>;
export type Scheduler = z.infer<typeof schedulerSchema>;
export type Mount = z.infer<typeof mountSchema>;
export type Hook = z.infer<typeof hookSchema>;
export type Hooks = z.infer<typeof hooksSchema>;
export type IdMapping = z.infer<typeof idMappingSchema>;
export type Linux = z.infer<typeof linuxSchema>;
export type Namespace = z.infer<typeof namespaceSchema>;
export type NamespaceType = Namespace["type"];
export type Device = z.infer<typeof deviceSchema>;
export type DeviceRule = z.infer<typeof deviceRuleSchema>;
export type Resources = z.infer<typeof resourcesSchema>;
export type MemoryResources = z.infer<typeof memorySchema>;
export type CpuResources = z.infer<typeof cpuSchema>;
export type BlockIoResources = z.infer<typeof blockIoSchema>;
export type Seccomp = z.infer<typeof seccompSchema>;
export type SeccompRule = z.infer<typeof seccompRuleSchema>;

/** Checks a decoded config.json; the message names each bad field by its path. */
export function parseSpec(value: unknown, from: string): Spec {
  return parse(specSchema, value, from);
}

/** Checks a decoded `process` object: of `exec --process`, or over the agent's API. */
export function parseProcess(value: unknown, from: string): Process {
  return parse(processSchema, value, from);
}

/** Checks a decoded `linux.resources` object: of `update --resources`, or over the agent's API. */
export function parseResources(value: unknown, from: string): Resources {
  return parse(resourcesSchema, value, from);
}

function parse<Schema extends z.ZodMiniType>(schema: Schema, value: unknown, from: string): z.infer<Schema> {
  const cleaned = dropNulls(value);
  const result = schema.safeParse(cleaned);
  if (result.success) return result.data;
  throw new TskataError("invalid", `${from}: ${sayIssues(result.error.issues, cleaned)}`);
}
