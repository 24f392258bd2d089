/**
 * The testbed's kernel: Debian's, out of its package, never installed on the host; and which of its
 * modules must be in the initramfs, in which order.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, run, step } from "../lib/steps.ts";
import { newestCached } from "./cached.ts";

/** For cloud machines. */
const META = "linux-image-cloud-amd64";
const LOG = "testbed-kernel";

export interface TestbedKernel {
  readonly image: string;
  readonly version: string;
  /** /lib/modules/<version> of the package, with modules.dep and modules.alias; absent: all that is needed is built in. */
  readonly modules?: string;
}

/** Fetched once for each version that apt offers. */
export async function testbedKernel(): Promise<TestbedKernel> {
  const name = packageName();
  const folder = join(cacheFolder, `testbed-${name}`);
  if (!existsSync(folder)) await step(`testbed kernel: ${name}`, async () => await fetchKernel(name, folder));
  const version = readdirSync(join(folder, "lib/modules"))[0] ?? "";
  return { image: join(folder, `boot/vmlinuz-${version}`), version, modules: join(folder, "lib/modules", version) };
}

/** The newest that apt knows of; without apt's answer one that was fetched before will do. */
function packageName(): string {
  const { stdout } = spawnSync("apt-cache", ["depends", META], { encoding: "utf8" });
  const known = /Depends: (linux-image-\S+)/.exec(stdout ?? "")?.[1];
  if (known !== undefined) return known;
  const newest = newestCached(/^testbed-linux-image-[0-9.-]+-cloud-amd64$/);
  if (newest === undefined) throw new Error(`apt knows no ${META}; try apt-get update`);
  return newest.slice("testbed-".length);
}

async function fetchKernel(name: string, folder: string): Promise<void> {
  mkdirSync(cacheFolder, { recursive: true });
  const making = mkdtempSync(`${folder}.`);
  try {
    await run(LOG, "apt-get", ["-q", "download", name], { cwd: making });
    const archive = readdirSync(making).find((entry) => entry.endsWith(".deb")) ?? "";
    await run(LOG, "dpkg-deb", ["-x", archive, "."], { cwd: making });
    const version = readdirSync(join(making, "lib/modules"))[0] ?? "";
    await run(LOG, "busybox", ["depmod", "-b", making, version]);
    for (const needless of [archive, "usr", `boot/System.map-${version}`]) rmSync(join(making, needless), { recursive: true, force: true });
    renameSync(making, folder);
  } catch (error) {
    rmSync(making, { recursive: true, force: true });
    throw error;
  }
}

/** The contents of modules.dep and modules.builtin. */
export interface ModuleLists {
  readonly dependencies: string;
  readonly builtIn: string;
}

/** Files of the named modules and of all they need, in an order that insmod takes; paths relative to the modules' folder. What is in the kernel has none. */
export function loadOrder(names: readonly string[], { dependencies, builtIn }: ModuleLists): string[] {
  const needs = new Map<string, string[]>();
  const files = new Map<string, string>();
  for (const line of dependencies.split("\n")) {
    const [file = "", rest = ""] = line.split(":");
    if (file === "") continue;
    files.set(moduleName(file), file);
    needs.set(
      file,
      rest.split(" ").filter((word) => word !== ""),
    );
  }
  const inKernel = new Set(builtIn.split("\n").map(moduleName));
  const order = new Set<string>();
  const add = (file: string): void => {
    if (order.has(file)) return;
    for (const needed of needs.get(file) ?? []) add(needed);
    order.add(file);
  };
  for (const name of names) {
    const module = name.replaceAll("-", "_");
    if (inKernel.has(module)) continue;
    const file = files.get(module);
    if (file === undefined) throw new Error(`the kernel package has no module "${name}"`);
    add(file);
  }
  return [...order];
}

/** Name as the kernel has it: dashes of the file are underscores. */
function moduleName(file: string): string {
  return (file.split("/").at(-1) ?? "").replace(/\.ko$/, "").replaceAll("-", "_");
}

export function readModuleLists(modules: string): ModuleLists {
  const read = (name: string): string => readFileSync(join(modules, name), "utf8");
  return { dependencies: read("modules.dep"), builtIn: read("modules.builtin") };
}
