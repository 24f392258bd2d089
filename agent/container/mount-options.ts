/** Mount options of config.json (config.md "Linux mount options", runc's list) as what mount(2) and mount_setattr(2) take. */
import { TskataError } from "../../src/base/errors.ts";
import type { Mount } from "../../src/oci/spec.ts";
import { MOUNT_BIND, MOUNT_CGROUP, MOUNT_COPY_UP, MOUNT_RECURSIVE_BIND, MOUNT_REMOUNT, type PlanMount } from "./plan.ts";

const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  SYNCHRONOUS: 16,
  MANDLOCK: 64,
  DIRSYNC: 128,
  NOSYMFOLLOW: 256,
  NOATIME: 1024,
  NODIRATIME: 2048,
  REC: 16_384,
  SILENT: 32_768,
  POSIXACL: 1 << 16,
  UNBINDABLE: 1 << 17,
  PRIVATE: 1 << 18,
  SLAVE: 1 << 19,
  SHARED: 1 << 20,
  RELATIME: 1 << 21,
  I_VERSION: 1 << 23,
  STRICTATIME: 1 << 24,
  LAZYTIME: 1 << 25,
};

/** MOUNT_ATTR_* of <linux/mount.h>. */
const ATTR = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, NOATIME: 0x10, STRICTATIME: 0x20, ATIME: 0x70, NODIRATIME: 0x80, NOSYMFOLLOW: 0x200000 };

/** A table without Object's own names: options are the caller's words. */
function table<T>(entries: Record<string, T>): Readonly<Record<string, T | undefined>> {
  return Object.assign(Object.create(null) as Record<string, T>, entries);
}

interface Effect {
  readonly set?: number;
  readonly clear?: number;
  readonly attrSet?: number;
  readonly attrClear?: number;
}

/** Options that a mount has by itself; with "r" before the name, they hold for the mounts below it too. */
const ATTRIBUTES = table<Effect>({
  ro: { set: MS.RDONLY, attrSet: ATTR.RDONLY },
  rw: { clear: MS.RDONLY, attrClear: ATTR.RDONLY },
  nosuid: { set: MS.NOSUID, attrSet: ATTR.NOSUID },
  suid: { clear: MS.NOSUID, attrClear: ATTR.NOSUID },
  nodev: { set: MS.NODEV, attrSet: ATTR.NODEV },
  dev: { clear: MS.NODEV, attrClear: ATTR.NODEV },
  noexec: { set: MS.NOEXEC, attrSet: ATTR.NOEXEC },
  exec: { clear: MS.NOEXEC, attrClear: ATTR.NOEXEC },
  noatime: { set: MS.NOATIME, attrSet: ATTR.NOATIME, attrClear: ATTR.ATIME },
  atime: { clear: MS.NOATIME, attrClear: ATTR.ATIME },
  nodiratime: { set: MS.NODIRATIME, attrSet: ATTR.NODIRATIME },
  diratime: { clear: MS.NODIRATIME, attrClear: ATTR.NODIRATIME },
  relatime: { set: MS.RELATIME, attrClear: ATTR.ATIME },
  norelatime: { clear: MS.RELATIME, attrClear: ATTR.ATIME },
  strictatime: { set: MS.STRICTATIME, attrSet: ATTR.STRICTATIME, attrClear: ATTR.ATIME },
  nostrictatime: { clear: MS.STRICTATIME, attrClear: ATTR.ATIME },
  nosymfollow: { set: MS.NOSYMFOLLOW, attrSet: ATTR.NOSYMFOLLOW },
  symfollow: { clear: MS.NOSYMFOLLOW, attrClear: ATTR.NOSYMFOLLOW },
});

/** Options of a filesystem as a whole: mount(2) flags only. */
const FILESYSTEM = table<Effect>({
  acl: { set: MS.POSIXACL },
  noacl: { clear: MS.POSIXACL },
  async: { clear: MS.SYNCHRONOUS },
  sync: { set: MS.SYNCHRONOUS },
  dirsync: { set: MS.DIRSYNC },
  iversion: { set: MS.I_VERSION },
  noiversion: { clear: MS.I_VERSION },
  lazytime: { set: MS.LAZYTIME },
  nolazytime: { clear: MS.LAZYTIME },
  mand: { set: MS.MANDLOCK },
  nomand: { clear: MS.MANDLOCK },
  silent: { set: MS.SILENT },
  loud: { clear: MS.SILENT },
  defaults: {},
});

const PROPAGATION = table<number>({
  private: MS.PRIVATE,
  rprivate: MS.PRIVATE | MS.REC,
  shared: MS.SHARED,
  rshared: MS.SHARED | MS.REC,
  slave: MS.SLAVE,
  rslave: MS.SLAVE | MS.REC,
  unbindable: MS.UNBINDABLE,
  runbindable: MS.UNBINDABLE | MS.REC,
});

const MODES = table<number>({
  bind: MOUNT_BIND,
  rbind: MOUNT_BIND | MOUNT_RECURSIVE_BIND,
  remount: MOUNT_REMOUNT,
  tmpcopyup: MOUNT_COPY_UP,
});

/** Flags of linux.rootfsPropagation; 0 when it is not given. */
export function rootPropagation(name: string | undefined): number {
  return name === undefined ? 0 : (PROPAGATION[name] ?? 0);
}

/** Every option this understands by name; anything else goes to the filesystem as data. */
export function knownOptions(): string[] {
  const recursive = Object.keys(ATTRIBUTES).map((name) => `r${name}`);
  return [...Object.keys(ATTRIBUTES), ...recursive, ...Object.keys(FILESYSTEM), ...Object.keys(PROPAGATION), ...Object.keys(MODES)].sort();
}

export function planMount(mount: Mount): PlanMount {
  const type = mount.type ?? "";
  const parsed = { flags: 0, attrSet: 0, attrClear: 0, recursiveAttrSet: 0, recursiveAttrClear: 0, propagation: [] as number[], options: 0 };
  const data: string[] = [];
  for (const option of mount.options ?? []) applyOption(option, parsed, data);
  if (type === "bind") parsed.options |= MOUNT_BIND;
  if (type === "cgroup" || type === "cgroup2") parsed.options |= MOUNT_CGROUP;
  if ((parsed.options & MOUNT_COPY_UP) !== 0 && type !== "tmpfs") {
    throw new TskataError("invalid", `mount at "${mount.destination}": tmpcopyup is for tmpfs only`);
  }
  return { source: mount.source ?? "", target: mount.destination, type, data: data.join(","), ...parsed };
}

type Parsed = { -readonly [Key in "flags" | "attrSet" | "attrClear" | "recursiveAttrSet" | "recursiveAttrClear" | "options"]: number } & {
  propagation: number[];
};

function applyOption(option: string, parsed: Parsed, data: string[]): void {
  const effect = ATTRIBUTES[option] ?? FILESYSTEM[option];
  const recursive = option.startsWith("r") ? ATTRIBUTES[option.slice(1)] : undefined;
  const mode = MODES[option];
  const propagation = PROPAGATION[option];
  if (mode !== undefined) parsed.options |= mode;
  else if (propagation !== undefined) parsed.propagation.push(propagation);
  else if (effect !== undefined) {
    parsed.flags = (parsed.flags & ~(effect.clear ?? 0)) | (effect.set ?? 0);
    parsed.attrSet = (parsed.attrSet & ~(effect.attrClear ?? 0)) | (effect.attrSet ?? 0);
    parsed.attrClear = (parsed.attrClear & ~(effect.attrSet ?? 0)) | (effect.attrClear ?? 0);
  } else if (recursive !== undefined) {
    parsed.recursiveAttrSet = (parsed.recursiveAttrSet & ~(recursive.attrClear ?? 0)) | (recursive.attrSet ?? 0);
    parsed.recursiveAttrClear = (parsed.recursiveAttrClear & ~(recursive.attrSet ?? 0)) | (recursive.attrClear ?? 0);
  } else data.push(option);
}
