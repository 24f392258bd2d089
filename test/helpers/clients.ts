/**
 * The configs that real clients sent (test/fixtures/clients), put into bundles of a test's own: what names files of the recording host
 * is replaced, and nothing else, but the program that runs, and a mount of the cgroup where there is none. And what such a container must
 * show from inside, whatever its config asks for.
 */
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { ExecutionContext } from "ava";
import { busyboxRootfs } from "../../scripts/lib/busybox.ts";
import { capabilities } from "../../src/oci/features.ts";
import type { Mount, Spec } from "../../src/oci/spec.ts";
import { onTerminal } from "./console.ts";
import { buildFixture } from "./fixtures.ts";
import { describe, repository, type Scratch } from "./tskata.ts";

export interface Recorded {
  readonly name: string;
  /** What was typed or called. */
  readonly command: string;
  readonly config: Spec;
}

export type Client = "docker" | "podman" | "containerd";

export function recorded(client: Client): ReadonlyMap<string, Recorded> {
  const lines = readFileSync(join(repository, `test/fixtures/clients/${client}.jsonl`), "utf8")
    .trim()
    .split("\n");
  const parsed = lines.map((line) => JSON.parse(line) as Partial<Recorded> & { profile?: string; seccomp?: unknown });
  const profiles = new Map(parsed.flatMap(({ profile, seccomp }) => (profile === undefined ? [] : [[profile, seccomp] as const])));
  const found = new Map<string, Recorded>();
  for (const { name, command = "", config } of parsed) {
    if (name === undefined || config === undefined) continue;
    const linux = config.linux as { seccomp?: unknown };
    if (typeof linux.seccomp === "string") linux.seccomp = profiles.get(linux.seccomp);
    found.set(name, { name, command, config });
  }
  return found;
}

/** A config of its own each time: tests change it. */
export function configOf(client: Client, name: string): Spec {
  const found = recorded(client).get(name);
  if (found === undefined) throw new Error(`${client} has no ${name}`);
  return found.config;
}

// -- files of the recording host -------------------------------------------------------------------------------------------

export function isBind({ type, options = [] }: Mount): boolean {
  return type === "bind" || options.includes("bind") || options.includes("rbind");
}

const FOLDERS = new Set(["shm", "_data", "volume"]);
const INITS = new Set(["docker-init", "catatonit"]);

/** Makes the bundle `folder`: the root filesystem, what is bound, and config.json. */
export function writeClientBundle(folder: string, config: Spec, rootfs: (path: string) => void = busyboxRootfs): string {
  const sources = join(folder, "sources");
  mkdirSync(sources, { recursive: true });
  rootfs(join(folder, "rootfs"));
  for (const [index, mount] of (config.mounts ?? []).entries()) {
    if (isBind(mount)) mount.source = hostFile(join(sources, String(index)), basename(mount.source ?? ""));
  }
  config.root = { ...config.root, path: "rootfs" };
  const owner = config.linux?.uidMappings?.[0]?.hostID;
  if (owner !== undefined) own(join(folder, "rootfs"), owner);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}

function hostFile(path: string, name: string): string {
  if (FOLDERS.has(name)) mkdirSync(path, { mode: 0o777 });
  else if (INITS.has(name)) buildFixture("init", path);
  else writeFileSync(path, `the host's ${name}\n`);
  return path;
}

/** As engines give an image to the user that a container's root is. */
function own(path: string, id: number): void {
  chownSync(path, id, id);
  if (!lstatSync(path).isDirectory()) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) if (!entry.isSymbolicLink()) own(join(path, entry.name), id);
}

// -- namespaces of other containers ------------------------------------------------------------------------------------------

const NS_FILES: Readonly<Record<string, string>> = { pid: "pid", ipc: "ipc", uts: "uts", network: "net" };

/** Its namespaces that were a process's of the recording host are those of `pid`, and so is its network, whatever that was. */
export function joinProcess(config: Spec, pid: number): void {
  for (const namespace of config.linux?.namespaces ?? []) {
    const file = NS_FILES[namespace.type];
    if (file !== undefined && (namespace.type === "network" || namespace.path !== undefined)) namespace.path = `/proc/${pid}/ns/${file}`;
  }
}

// -- the cgroup --------------------------------------------------------------------------------------------------------------

const CGROUP = "/sys/fs/cgroup";

/** Limits show where the cgroup is mounted; `ctr` and the CRI plugin for a pod's sandbox mount none. */
export function showCgroup(config: Spec): void {
  if (config.mounts?.some(({ destination }) => destination === CGROUP) === true) return;
  config.mounts = [...(config.mounts ?? []), { destination: CGROUP, type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev", "ro"] }];
}

/** Weights that the shares of the recorded configs are, the kernel's own without any (runc's formula). */
const WEIGHTS: ReadonlyMap<number, string> = new Map([
  [0, "100"],
  [2, "1"],
  [512, "20"],
  [1024, "39"],
]);

/** Files of a cgroup v2 with what they hold where these are the resources. */
function cgroupFiles({ linux }: Spec): Readonly<Record<string, string | undefined>> {
  const { memory = {}, cpu = {}, pids = {} } = linux?.resources ?? {};
  const { limit, swap, reservation } = memory;
  return {
    "memory.max": String(limit ?? "max"),
    "memory.swap.max": String(limit === undefined || swap === undefined ? "max" : swap - limit),
    "memory.low": String(reservation ?? 0),
    "cpu.weight": WEIGHTS.get(cpu.shares ?? 0),
    "cpu.max": `${cpu.quota ?? "max"} ${cpu.period ?? 100_000}`,
    "cpuset.cpus": cpu.cpus ?? "",
    "pids.max": String(pids.limit ?? "max"),
  };
}

// -- from inside -------------------------------------------------------------------------------------------------------------

/** What a container tells of itself, a part for each command. */
export type Report = Readonly<Record<string, string>>;

function commands(config: Spec): Record<string, string> {
  const { sysctl = {}, devices = [], maskedPaths = [], readonlyPaths = [] } = config.linux ?? {};
  return {
    status: "cat /proc/$$/status",
    limits: "cat /proc/$$/limits",
    mounts: "cat /proc/$$/mountinfo",
    cgroup: "cat /proc/$$/cgroup",
    resources: `cd ${CGROUP}; for name in ${Object.keys(cgroupFiles(config)).join(" ")}; do echo "$name $(cat $name)"; done`,
    oom: "cat /proc/$$/oom_score_adj",
    hostname: "hostname",
    environment: "env",
    folder: "pwd",
    umask: "umask",
    init: "tr '\\0\\n' '  ' </proc/1/cmdline | head -c 60; echo",
    sysctls: `cd /proc/sys; for name in ${Object.keys(sysctl)
      .map((name) => name.replaceAll(".", "/"))
      .join(" ")}; do tr '\\n\\t' '  ' <$name; echo; done`,
    devices: `for path in ${devices.map(({ path }) => path).join(" ")}; do stat -c '%n %F %t:%T %a %u:%g' $path; done`,
    masked: `for path in ${maskedPaths.join(" ")}; do test -e $path && echo $path $(ls -A $path 2>/dev/null | grep -vx $path | wc -l) $(cat $path 2>/dev/null | wc -c); done; true`,
    there: `for path in ${readonlyPaths.join(" ")}; do test -e $path && echo $path; done; true`,
  };
}

const MARK = "=====";

/** The shell line that reports, followed by `more`. */
export function reporting(config: Spec, more: Readonly<Record<string, string>> = {}): string {
  return Object.entries({ ...commands(config), ...more })
    .map(([name, line]) => `echo ${MARK} ${name}; (${line}) 2>&1`)
    .join("\n")
    .concat("; true");
}

export function parseReport(text: string): Report {
  const parts = text.split(new RegExp(`^${MARK} `, "m")).slice(1);
  return Object.fromEntries(parts.map((part) => [part.slice(0, part.indexOf("\n")), part.slice(part.indexOf("\n") + 1).trim()]));
}

/** Runs a recorded config to its end with a shell that reports in place of its program, `prepare` first; checks and returns the report. */
export async function runReporting(
  t: ExecutionContext,
  scratch: Scratch,
  id: string,
  config: Spec,
  more: Readonly<Record<string, string>> = {},
  prepare: () => void = () => {},
): Promise<Report> {
  const args = config.process?.args ?? [];
  const after = args.indexOf("--");
  const line = ["sh", "-c", reporting(config, more)];
  Object.assign(config.process ?? {}, { args: after < 0 ? line : [...args.slice(0, after + 1), ...line] });
  showCgroup(config);
  const bundle = writeClientBundle(join(scratch.folder, `bundle-${id}`), config);
  prepare();
  const text = config.process?.terminal === true ? await onTerminal(t, scratch, id, bundle) : await outputOf(t, scratch, id, bundle);
  return checkedReport(t, config, text);
}

async function outputOf(t: ExecutionContext, scratch: Scratch, id: string, bundle: string): Promise<string> {
  const outcome = await scratch.tskata(["run", "--bundle", bundle, id]);
  t.is(outcome.code, 0, `${describe(outcome)}\n${outcome.code === 0 ? "" : scratch.logs()}`);
  return outcome.stdout;
}

/** As runReporting, of a container that runs its own program, by an exec, which has all that its init has. */
export async function execReporting(t: ExecutionContext, scratch: Scratch, id: string, config: Spec): Promise<void> {
  checkedReport(t, config, await scratch.sh(id, reporting(config)));
}

function checkedReport(t: ExecutionContext, config: Spec, text: string): Report {
  const report = parseReport(text);
  t.true(Object.keys(report).length > 10, text);
  checkReport(t, config, report);
  return report;
}

function statusOf(report: Report, field: string): string {
  return new RegExp(`^${field}:[ \\t]*(.*)$`, "m").exec(report["status"] ?? "")?.[1]?.trim() ?? "";
}

/** All that a config asks for and that shows. */
export function checkReport(t: ExecutionContext, config: Spec, report: Report): void {
  checkProcess(t, config, report);
  checkMounts(t, config, report);
  const { linux = {}, hostname = "" } = config;
  const has = (type: string): boolean => linux.namespaces?.some((namespace) => namespace.type === type) ?? false;
  if (hostname !== "") t.is(report["hostname"], hostname);
  const cgroup = report["cgroup"] ?? "";
  if (has("cgroup")) t.is(cgroup, "0::/");
  else t.regex(cgroup, /^0::\/tskata\/\S+$/);
  const files = Object.entries(cgroupFiles(config)).map(([name, value = "not known"]) => `${name} ${value}`.trim());
  t.deepEqual(
    report["resources"]?.split("\n").map((each) => each.trim()),
    files,
  );
  checkSysctls(t, config, report);
  const kinds = { c: "character special file", u: "character special file", b: "block special file", p: "fifo" };
  const nodes = (linux.devices ?? []).map(
    ({ path, type, major = 0, minor = 0, fileMode = 0o666, uid = 0, gid = 0 }) =>
      `${path} ${kinds[type]} ${major.toString(16)}:${minor.toString(16)} ${(fileMode & 0o7777).toString(8)} ${uid}:${gid}`,
  );
  t.is(report["devices"], nodes.join("\n"));
}

function checkSysctls(t: ExecutionContext, { linux = {} }: Spec, report: Report): void {
  const words = (text: string): string => text.trim().replaceAll(/\s+/g, " ");
  const found = (report["sysctls"] ?? "").split("\n").map(words);
  const userNamespace = linux.namespaces?.some(({ type }) => type === "user") ?? false;
  for (const [index, [name, value]] of Object.entries(linux.sysctl ?? {}).entries()) {
    // Groups of the guest, since the network is the pod's: a user namespace that does not have them sees "nogroup".
    const nogroup = userNamespace && name === "net.ipv4.ping_group_range";
    t.is(found[index], nogroup ? "65534 65534" : words(value), name);
  }
}

function bits(names: readonly string[] = []): string {
  const set = names.reduce((sum, name) => sum | (1n << BigInt(capabilities().indexOf(name))), 0n);
  return set.toString(16).padStart(16, "0");
}

const LIMITS: Readonly<Record<string, string>> = {
  RLIMIT_NOFILE: "Max open files",
  RLIMIT_NPROC: "Max processes",
  RLIMIT_CORE: "Max core file size",
};

function checkProcess(t: ExecutionContext, { process, linux }: Spec, report: Report): void {
  if (process === undefined) throw new Error("the config has no process");
  const { capabilities: sets, user, rlimits = [], env = [] } = process;
  t.is(statusOf(report, "CapBnd"), bits(sets?.bounding));
  if ((user?.uid ?? 0) === 0) t.is(statusOf(report, "CapEff"), bits(sets?.effective));
  t.is(statusOf(report, "NoNewPrivs"), process.noNewPrivileges === true ? "1" : "0");
  t.is(statusOf(report, "Seccomp"), linux?.seccomp === undefined ? "0" : "2");
  t.is(
    statusOf(report, "Uid"),
    Array(4)
      .fill(user?.uid ?? 0)
      .join("\t"),
  );
  t.is(
    statusOf(report, "Gid"),
    Array(4)
      .fill(user?.gid ?? 0)
      .join("\t"),
  );
  t.is(statusOf(report, "Groups"), (user?.additionalGids ?? []).join(" "));
  t.is(report["umask"], (user?.umask ?? 0o022).toString(8).padStart(4, "0"));
  t.is(report["oom"], String(process.oomScoreAdj ?? 0));
  t.is(report["folder"], process.cwd);
  const lines = new Set(report["environment"]?.split("\n"));
  for (const entry of env) t.true(lines.has(entry), entry);
  for (const { type, soft, hard } of rlimits) {
    const name = LIMITS[type];
    if (name === undefined) throw new Error(`no line of /proc/PID/limits is known for ${type}`);
    t.regex(report["limits"] ?? "", new RegExp(`^${name} +${soft} +${hard} `, "m"));
  }
}

interface MountLine {
  readonly point: string;
  readonly options: ReadonlySet<string>;
  readonly type: string;
  readonly superOptions: string;
}

/** /proc/PID/mountinfo (proc(5)); of two mounts at one point the one on top. */
export function mountLines(report: Report): ReadonlyMap<string, MountLine> {
  const lines = (report["mounts"] ?? "").split("\n").map((line) => {
    const [own = "", filesystem = ""] = line.split(" - ");
    const [point = "", options = ""] = own.split(" ").slice(4);
    const [type = "", , superOptions = ""] = filesystem.split(" ");
    return { point, options: new Set(options.split(",")), type, superOptions };
  });
  return new Map(lines.map((line) => [line.point, line]));
}

const TYPES: Readonly<Record<string, string>> = { cgroup: "cgroup2", bind: "virtiofs" };

function checkMounts(t: ExecutionContext, config: Spec, report: Report): void {
  const lines = mountLines(report);
  const userNamespace = config.linux?.namespaces?.some(({ type }) => type === "user") ?? false;
  const onTop = new Map((config.mounts ?? []).map((mount) => [mount.destination, mount]));
  for (const mount of onTop.values()) {
    const { destination, options = [], type = "" } = mount;
    const line = lines.get(destination);
    const kind = isBind(mount) ? "bind" : type;
    t.is(line?.type, TYPES[kind] ?? kind, destination);
    for (const flag of ["nosuid", "noexec", "nodev", "ro"]) {
      if (options.includes(flag)) t.true(line?.options.has(flag), `${destination}: ${flag} of ${[...(line?.options ?? [])].join()}`);
    }
    // A user namespace sees the guest's own /sys, read-only.
    if (!options.includes("ro") && !(userNamespace && destination === "/sys")) t.false(line?.options.has("ro"), destination);
    const size = sizeOf(options);
    if (size !== undefined) t.regex(line?.superOptions ?? "", new RegExp(`(^|,)size=${size}k(,|$)`), destination);
  }
  t.is(lines.get("/")?.options.has("ro"), config.root?.readonly ?? false);
  for (const line of (report["masked"] ?? "").split("\n").filter((each) => each !== "")) t.regex(line, /^\S+ 0 0$/, "masked");
  for (const path of (report["there"] ?? "").split("\n").filter((each) => each !== "")) t.true(lines.get(path)?.options.has("ro"), path);
}

/** In KiB, as the kernel tells a tmpfs's. */
function sizeOf(options: readonly string[]): number | undefined {
  const [, number, unit = ""] = /^size=(\d+)([km]?)$/.exec(options.find((option) => option.startsWith("size=")) ?? "") ?? [];
  const scale = { "": 1 / 1024, k: 1, m: 1024 }[unit] ?? 1;
  return number === undefined ? undefined : Number(number) * scale;
}
