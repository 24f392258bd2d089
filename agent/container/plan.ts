/** The launcher's plan as bytes; native/launcher/plan.h says what each field is and in which order. */

export interface PlanMount {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly data: string;
  /** MS_* for a filesystem. */
  readonly flags: number;
  /** MOUNT_ATTR_* for binds and remounts. */
  readonly attrSet: number;
  readonly attrClear: number;
  readonly recursiveAttrSet: number;
  readonly recursiveAttrClear: number;
  /** MS_PRIVATE | MS_REC and the like, in order. */
  readonly propagation: readonly number[];
  /** MOUNT_* below. */
  readonly options: number;
}

export const MOUNT_BIND = 1;
export const MOUNT_RECURSIVE_BIND = 2;
export const MOUNT_COPY_UP = 4;
export const MOUNT_REMOUNT = 8;
export const MOUNT_CGROUP = 16;

export interface PlanDevice {
  readonly path: string;
  /** With the file type's bits. */
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
  readonly uid: number;
  readonly gid: number;
}

export interface PlanScheduler {
  readonly policy: number;
  readonly nice: number;
  readonly priority: number;
  readonly flags: number;
  readonly runtime: number;
  readonly deadline: number;
  readonly period: number;
}

export interface PlanCapabilities {
  readonly bounding: bigint;
  readonly effective: bigint;
  readonly inheritable: bigint;
  readonly permitted: bigint;
  readonly ambient: bigint;
}

export interface PlanSeccompRule {
  readonly action: number;
  readonly names: readonly string[];
  readonly args: readonly { readonly index: number; readonly op: number; readonly value: number; readonly valueTwo: number }[];
}

export interface PlanSeccomp {
  readonly defaultAction: number;
  readonly flags: number;
  readonly architectures: readonly number[];
  readonly rules: readonly PlanSeccompRule[];
}

export interface PlanHook {
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly timeoutSeconds: number;
}

export interface Plan {
  readonly container: boolean;
  readonly terminal: boolean;
  readonly noPivot: boolean;
  readonly newKeyring: boolean;
  readonly noNewPrivileges: boolean;
  readonly rootReadonly: boolean;
  /** CLONE_NEW*. */
  readonly newNamespaces: number;
  /** The container's folder, or the one below that was asked for. */
  readonly cgroup: string;
  /** The container's init, whose own cgroup is joined instead when that is below `cgroup`; 0: none. */
  readonly cgroupOf: number;
  /** Processors it may run on while it joins the cgroup, and from then on; empty: any. */
  readonly initialCpus: readonly number[];
  readonly finalCpus: readonly number[];
  readonly joins: readonly { readonly type: number; readonly path: string }[];
  readonly uidMap: string;
  readonly gidMap: string;
  readonly timeOffsets: string;
  readonly hostname: string;
  readonly domainname: string;
  readonly rootfs: string;
  readonly rootfsPropagation: number;
  readonly mounts: readonly PlanMount[];
  readonly devices: readonly PlanDevice[];
  readonly links: readonly (readonly [path: string, target: string])[];
  readonly sysctls: readonly (readonly [path: string, value: string])[];
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly rows: number;
  readonly columns: number;
  readonly rlimits: readonly { readonly resource: number; readonly soft: bigint; readonly hard: bigint }[];
  readonly oomScoreAdj: number | undefined;
  readonly ioPriority: number | undefined;
  readonly scheduler: PlanScheduler | undefined;
  readonly personality: number | undefined;
  readonly umask: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly capabilities: PlanCapabilities | undefined;
  readonly cwd: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly seccomp: PlanSeccomp | undefined;
  readonly startHooks: readonly PlanHook[];
  readonly hookState: string;
}

const MAGIC = 0x504b5354;
const VERSION = 1;
const INT32_MIN = -0x8000_0000;

class Writer {
  #bytes = Buffer.alloc(16 * 1024);
  #length = 0;

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  u32(value: number): this {
    this.#reserve(4);
    this.#length = this.#bytes.writeUInt32LE(value >>> 0, this.#length);
    return this;
  }

  i32(value: number): this {
    this.#reserve(4);
    this.#length = this.#bytes.writeInt32LE(value, this.#length);
    return this;
  }

  u64(value: number | bigint): this {
    this.#reserve(8);
    this.#length = this.#bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), this.#length);
    return this;
  }

  text(value: string): this {
    // execve and mount end a string at NUL: what follows would be lost without a word.
    if (value.includes("\0")) throw new Error(`a NUL character in ${JSON.stringify(value)}`);
    const length = Buffer.byteLength(value);
    this.u32(length);
    this.#reserve(length);
    this.#length += this.#bytes.write(value, this.#length);
    return this;
  }

  list<T>(items: readonly T[], write: (item: T) => void): this {
    this.u32(items.length);
    for (const item of items) write(item);
    return this;
  }

  texts(items: readonly string[]): this {
    return this.list(items, (item) => this.text(item));
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, this.#length + count));
    this.#bytes.copy(larger);
    this.#bytes = larger;
  }
}

export function encodePlan(plan: Plan): Uint8Array {
  const out = new Writer();
  const pair = ([first, second]: readonly [string, string]): void => void out.text(first).text(second);
  out.u32(MAGIC).u32(VERSION).u32(flagsOf(plan)).u32(plan.newNamespaces).text(plan.cgroup).u32(plan.cgroupOf);
  for (const cpus of [plan.initialCpus, plan.finalCpus]) out.list(cpus, (cpu) => out.u32(cpu));
  out.list(plan.joins, (join) => out.u32(join.type).text(join.path));
  out.text(plan.uidMap).text(plan.gidMap).text(plan.timeOffsets).text(plan.hostname).text(plan.domainname);
  out.text(plan.rootfs).u64(plan.rootfsPropagation);
  out.list(plan.mounts, (mount) => writeMount(out, mount));
  out.list(plan.devices, (device) => out.text(device.path).u32(device.mode).u32(device.major).u32(device.minor).u32(device.uid).u32(device.gid));
  out.list(plan.links, pair).list(plan.sysctls, pair).texts(plan.maskedPaths).texts(plan.readonlyPaths).u32(plan.rows).u32(plan.columns);
  out.list(plan.rlimits, (limit) => out.u32(limit.resource).u64(limit.soft).u64(limit.hard));
  out.i32(plan.oomScoreAdj ?? INT32_MIN).i32(plan.ioPriority ?? -1);
  writeScheduler(out, plan.scheduler);
  out
    .u64(plan.personality ?? -1)
    .i32(plan.umask ?? -1)
    .u32(plan.uid)
    .u32(plan.gid);
  out.list(plan.groups, (group) => out.u32(group));
  writeCapabilities(out, plan.capabilities);
  out.text(plan.cwd).texts(plan.args).texts(plan.env);
  writeSeccomp(out, plan.seccomp);
  out.list(plan.startHooks, (hook) => out.text(hook.path).texts(hook.args).texts(hook.env).u32(hook.timeoutSeconds));
  return out.text(plan.hookState).finish();
}

function flagsOf(plan: Plan): number {
  const bits = [plan.container, plan.terminal, plan.noPivot, plan.newKeyring, plan.noNewPrivileges, plan.rootReadonly];
  return bits.reduce((flags, bit, index) => flags | (bit ? 1 << index : 0), 0);
}

function writeMount(out: Writer, mount: PlanMount): void {
  out.text(mount.source).text(mount.target).text(mount.type).text(mount.data).u64(mount.flags);
  out.u64(mount.attrSet).u64(mount.attrClear).u64(mount.recursiveAttrSet).u64(mount.recursiveAttrClear);
  out.list(mount.propagation, (flags) => out.u64(flags)).u32(mount.options);
}

function writeScheduler(out: Writer, scheduler: PlanScheduler | undefined): void {
  const { policy = 0, nice = 0, priority = 0, flags = 0, runtime = 0, deadline = 0, period = 0 } = scheduler ?? {};
  out
    .u32(scheduler === undefined ? 0 : 1)
    .u32(policy)
    .i32(nice)
    .u32(priority)
    .u64(flags)
    .u64(runtime)
    .u64(deadline)
    .u64(period);
}

function writeCapabilities(out: Writer, capabilities: PlanCapabilities | undefined): void {
  const { bounding = 0n, effective = 0n, inheritable = 0n, permitted = 0n, ambient = 0n } = capabilities ?? {};
  out
    .u32(capabilities === undefined ? 0 : 1)
    .u64(bounding)
    .u64(effective)
    .u64(inheritable)
    .u64(permitted)
    .u64(ambient);
}

function writeSeccomp(out: Writer, seccomp: PlanSeccomp | undefined): void {
  const { defaultAction = 0, flags = 0, architectures = [], rules = [] } = seccomp ?? {};
  out
    .u32(seccomp === undefined ? 0 : 1)
    .u32(defaultAction)
    .u32(flags)
    .list(architectures, (architecture) => out.u32(architecture));
  out.list(rules, (rule) => {
    out.u32(rule.action).texts(rule.names);
    out.list(rule.args, (argument) => out.u32(argument.index).u32(argument.op).u64(argument.value).u64(argument.valueTwo));
  });
}
