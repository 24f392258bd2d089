/** A bundle on disk: config.json read and checked, the root filesystem found, and what tskata can't do named at once. */
import { readFileSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { TskataError } from "../base/errors.ts";
import { capabilities } from "./features.ts";
import { asked, IGNORED, REFUSED, REFUSED_RESOURCES, refuse } from "./refusals.ts";
import { type Linux, type Process, parseProcess, parseResources, parseSpec, type Resources, type Spec } from "./spec.ts";
import { checkSysctls } from "./sysctl.ts";

export const HOST_NETWORK =
  "host networking is not supported: the container runs in a virtual machine of its own; give it a network namespace (linux.namespaces, or without --network host)";

export interface Bundle {
  /** Absolute path of the bundle's folder. */
  readonly folder: string;
  /** Absolute path of the root filesystem. */
  readonly rootfs: string;
  readonly spec: Spec;
  readonly process: Process & { args: string[] };
  readonly linux: Linux;
}

/** Loads and checks `<folder>/config.json`; `warn` hears of what is ignored. */
export function loadBundle(folder: string, warn: (message: string) => void): Bundle {
  const absolute = resolve(folder);
  const spec = readSpec(join(absolute, "config.json"));
  const process = checkProcess(spec.process);
  const rootfs = checkRootfs(absolute, spec);
  const linux = spec.linux ?? {};
  refuseUnsupported(spec, linux);
  checkNamespaces(spec, linux);
  checkNamespaceSettings(linux);
  checkSysctls(linux);
  warnOfIgnored(spec, process, warn);
  return { folder: absolute, rootfs, spec, process, linux };
}

export function readSpec(file: string): Spec {
  const text = readOrUndefined(file);
  if (text === undefined) throw new TskataError("not-found", `JSON specification file ${file} not found`);
  return parseSpec(parseJson(text, file), file);
}

/** The `process` object of `exec --process FILE`. */
export function readProcessFile(file: string): Process {
  const text = readOrUndefined(file);
  if (text === undefined) throw new TskataError("not-found", `open ${file}: no such file or directory`);
  return parseProcess(parseJson(text, file), file);
}

/** The `linux.resources` object of `update --resources`; `text` is what `from` held. */
export function readResources(text: string, from: string): Resources {
  const resources = parseResources(parseJson(text, from), from);
  refuse(REFUSED_RESOURCES, resources);
  return resources;
}

/** JSON.parse whose error says the place as line and column. */
export function parseJson(text: string, from: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = (error as Error).message;
    throw new TskataError("invalid", `${from} is not JSON: ${sayPlace(message, text)}`);
  }
}

/** V8 tells the offset of most errors ("at position 31"), but not of an unexpected token, and none when the text just ends. */
function sayPlace(message: string, text: string): string {
  const position = /at position (\d+)/.exec(message)?.[1];
  const offset = position === undefined ? unexpectedToken(text) : Number(position);
  const before = text.slice(0, offset).split("\n");
  const what = message
    .replace(/( in JSON)? at position.*$/s, "")
    .replace(/, ".*$/s, "")
    .replace(/,? ?\.{3}.*$/s, "");
  return `line ${before.length}, column ${(before.at(-1) ?? "").length + 1}: ${what}`;
}

/** Offset of the first character that no JSON has there: the longest prefix that may still become JSON. */
function unexpectedToken(text: string): number {
  let [good, bad] = [0, text.length + 1];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (hasUnexpectedToken(text.slice(0, middle))) bad = middle;
    else good = middle;
  }
  return good;
}

function hasUnexpectedToken(text: string): boolean {
  try {
    JSON.parse(text);
    return false;
  } catch (error) {
    return (error as Error).message.startsWith("Unexpected token");
  }
}

function readOrUndefined(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new TskataError("invalid", `read ${file}`, { cause: error });
  }
}

// -- what the schema can't say -----------------------------------------------------------------------------------------

/** runc's words, which its callers show. */
export function checkProcess(process: Process | undefined): Process & { args: string[] } {
  if (process === undefined) throw new TskataError("invalid", "process property must not be empty");
  const { args = [] } = process;
  if (args.length === 0) throw new TskataError("invalid", "args must not be empty");
  const types = (process.rlimits ?? []).map(({ type }) => type);
  const twice = types.find((type, index) => types.indexOf(type) !== index);
  if (twice !== undefined) throw new TskataError("invalid", `process.rlimits: ${twice} is there twice`);
  return { ...process, args };
}

function checkRootfs(folder: string, spec: Spec): string {
  if (spec.root === undefined) throw new TskataError("invalid", "root must be specified");
  const rootfs = isAbsolute(spec.root.path) ? spec.root.path : join(folder, spec.root.path);
  let isFolder: boolean;
  try {
    isFolder = statSync(rootfs).isDirectory();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new TskataError("not-found", `invalid rootfs: stat ${rootfs}: ${code === "ENOENT" ? "no such file or directory" : code}`);
  }
  if (!isFolder) throw new TskataError("invalid", `invalid rootfs: ${rootfs} is not a directory`);
  return rootfs;
}

function checkNamespaces(spec: Spec, linux: Linux): void {
  const types = new Set<string>();
  for (const { type } of linux.namespaces ?? []) {
    if (types.has(type)) throw new TskataError("invalid", `duplicated ns "${type}" in linux.namespaces`);
    types.add(type);
  }
  if (spec.hostname !== undefined && spec.hostname !== "" && !types.has("uts")) {
    throw new TskataError("invalid", "unable to set hostname without a private UTS namespace");
  }
  if (spec.domainname !== undefined && spec.domainname !== "" && !types.has("uts")) {
    throw new TskataError("invalid", "unable to set domainname without a private UTS namespace");
  }
  if (!types.has("mount")) throw new TskataError("unsupported", 'linux.namespaces needs "mount": the guest\'s own mounts are not for containers');
  if (!types.has("network")) throw new TskataError("unsupported", HOST_NETWORK);
}

function refuseUnsupported(spec: Spec, linux: Linux): void {
  refuse(REFUSED, spec);
  refuse(REFUSED_RESOURCES, linux.resources, ["linux", "resources"]);
  const actions = [linux.seccomp?.defaultAction, ...(linux.seccomp?.syscalls ?? []).map((rule) => rule.action)];
  if (actions.includes("SCMP_ACT_NOTIFY"))
    throw new TskataError("unsupported", "the seccomp action SCMP_ACT_NOTIFY is not supported: seccomp user notification");
  for (const [index, mount] of (spec.mounts ?? []).entries()) {
    const option = mount.options?.find((name) => name === "idmap" || name === "ridmap");
    if (option !== undefined) throw new TskataError("unsupported", `mounts[${index}].options: ${option} is not supported: id-mapped mounts`);
  }
}

/** What would be without effect, because the namespace it is for is the guest's own. */
function checkNamespaceSettings(linux: Linux): void {
  const has = (type: string): boolean => linux.namespaces?.some((namespace) => namespace.type === type) ?? false;
  const isNew = (type: string): boolean => linux.namespaces?.some(({ path = "", ...namespace }) => namespace.type === type && path === "") ?? false;
  if (linux.timeOffsets !== undefined && !has("time")) throw new TskataError("invalid", "linux.timeOffsets needs a time namespace in linux.namespaces");
  for (const field of ["uidMappings", "gidMappings"] as const) {
    const mapped = (linux[field] ?? []).length > 0;
    if (mapped && !has("user")) throw new TskataError("invalid", `linux.${field} needs a user namespace in linux.namespaces`);
    if (!mapped && isNew("user")) throw new TskataError("invalid", `a user namespace in linux.namespaces needs linux.${field}`);
  }
}

function warnOfIgnored(spec: Spec, process: Process, warn: (message: string) => void): void {
  for (const { where, why } of asked(IGNORED, spec)) warn(`${where} is ignored: ${why}`);
  const named = new Set(Object.values(process.capabilities ?? {}).flatMap((set) => (Array.isArray(set) ? set.map(String) : [])));
  const unknown = [...named].filter((name) => !capabilities().includes(name.startsWith("CAP_") ? name : `CAP_${name}`));
  // config.md "Linux Process": what can't be granted is logged.
  if (unknown.length > 0) warn(`process.capabilities: ${unknown.join(", ")} ignored: unknown to this version`);
}
