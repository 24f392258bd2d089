/**
 * Where tskata's own files are, and where a container's and a pod's are on the host.
 *
 * The product is `dist/`: bin/tskata runs lib/tskata.cjs (and that lib/command-line.cjs), the sandbox is lib/sandbox.cjs, the guest's files are in guest/.
 * TSKATA_DIST names another dist; sources run unbundled (tests) find the repository's.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

export const DEFAULT_ROOT = "/run/tskata";
export const DEFAULT_CONFIG = "/etc/tskata/config.toml";

export interface Installation {
  readonly node: string;
  readonly sandbox: string;
  readonly addon: string;
  readonly proxy: string;
  readonly jail: string;
  readonly kernel: string;
  readonly image: string;
}

/** Paths of the installed parts; nothing is checked here. */
export function installation(dist: string = distFolder()): Installation {
  const library = join(dist, "lib");
  const bundledNode = join(library, "node");
  return {
    node: existsSync(bundledNode) ? bundledNode : process.execPath,
    sandbox: join(library, "sandbox.cjs"),
    addon: process.env["TSKATA_ADDON"] ?? join(library, "tskata.node"),
    proxy: join(library, "tskata-proxy"),
    jail: join(library, "tskata-jail"),
    kernel: join(dist, "guest", "vmlinux"),
    image: join(dist, "guest", "image.erofs"),
  };
}

/** dist/lib/<bundle>.cjs → dist; a source or test file → the repository's dist. */
export function distFolder(): string {
  const named = process.env["TSKATA_DIST"];
  if (named !== undefined && named !== "") return resolve(named);
  const script = process.argv[1] ?? "";
  if (script.endsWith(".cjs")) return dirname(dirname(resolve(script)));
  return repositoryDist();
}

function repositoryDist(): string {
  for (let folder = resolve(process.argv[1] ?? process.cwd()); folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, "native", "CMakeLists.txt"))) return join(folder, "dist");
  }
  return resolve("dist");
}

/** Where a container's host cgroup is without a linux.cgroupsPath: two roots may have containers of the same id. */
export function cgroupName(root: string, id: string): string {
  return root === DEFAULT_ROOT ? id : `${fingerprint(root)}-${id}`;
}

/** FNV-1a, 32 bits: node:crypto costs more to load than all of `state`. */
function fingerprint(text: string): string {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

/** The files of one container below --root. */
export interface ContainerPaths {
  readonly folder: string;
  readonly state: string;
  readonly exit: string;
  readonly pod: string;
}

export function containerPaths(root: string, id: string): ContainerPaths {
  const folder = join(root, id);
  return {
    folder,
    state: join(folder, "state.json"),
    exit: join(folder, "exit.json"),
    pod: join(folder, "pod"),
  };
}

/** The files of a pod (a VM); the sandbox runs with its folder as the working folder, so names stay below sun_path's 108. */
export interface PodPaths {
  readonly folder: string;
  readonly config: string;
  readonly control: string;
  readonly handoff: string;
  readonly shared: string;
  readonly spans: string;
  readonly consoleLog: string;
  readonly sandboxLog: string;
  /** What it writes to its standard error: the jail's last words among others. */
  readonly sandboxErrors: string;
  readonly hypervisorLog: string;
}

export function podPaths(folder: string): PodPaths {
  return {
    folder,
    config: join(folder, "config.json"),
    control: join(folder, "control.sock"),
    handoff: join(folder, "handoff.sock"),
    shared: join(folder, "shared"),
    spans: join(folder, "spans.jsonl"),
    consoleLog: join(folder, "console.log"),
    sandboxLog: join(folder, "sandbox.log"),
    sandboxErrors: join(folder, "sandbox.stderr"),
    hypervisorLog: join(folder, "qemu.log"),
  };
}
