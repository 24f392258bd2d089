/**
 * Builds the guest kernel: Debian's linux-source package with the patches beside this file, tinyconfig, the fragments merged over it, and
 * every symbol they ask for checked afterwards. Kept in the cache by the hash of all that goes in.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { cacheFolder, distFolder, hashOf, repository, run, step } from "../scripts/lib/steps.ts";

const SOURCE_PACKAGE = "linux-source-6.1";
const SOURCE_ARCHIVE = `/usr/src/${SOURCE_PACKAGE}.tar.xz`;
const FRAGMENTS = join(repository, "guest-kernel/fragments");
const PATCHES = join(repository, "guest-kernel/patches");
const LOG = "guest-kernel";
/** Raised when this file builds a different kernel from the same fragments. */
const RECIPE = 1;

/** Puts dist/guest/vmlinux and vmlinux.config there, from the cache when they were built before. */
export async function buildGuestKernel(): Promise<void> {
  const cached = await cachedKernel();
  mkdirSync(join(distFolder, "guest"), { recursive: true });
  for (const name of ["vmlinux", "vmlinux.config"]) {
    const [from, to] = [join(cached, name), join(distFolder, "guest", name)];
    if (existsSync(to) && statSync(to).size === statSync(from).size && statSync(to).mtimeMs >= statSync(from).mtimeMs) continue;
    copyFileSync(from, `${to}.new`);
    renameSync(`${to}.new`, to);
  }
}

/** A folder of the cache with vmlinux and vmlinux.config. `further` are fragments beside the product's own: files of the repository. */
export async function cachedKernel(further: readonly string[] = []): Promise<string> {
  const cached = join(cacheFolder, `kernel-${kernelKey(further)}`);
  if (!existsSync(cached)) await step(["guest kernel", ...further].join(" with "), async () => await build(cached, further));
  return cached;
}

function kernelKey(further: readonly string[]): string {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const source = spawnSync("dpkg-query", ["-W", "-f", "${Version}", SOURCE_PACKAGE], { encoding: "utf8" }).stdout;
  const compiler = spawnSync("gcc", ["-dumpfullversion"], { encoding: "utf8" }).stdout;
  return hashOf("guest-kernel/fragments", "guest-kernel/patches", ...further, { text: `${RECIPE} ${source} ${compiler}` }).slice(0, 16);
}

async function build(target: string, further: readonly string[]): Promise<string> {
  const work = mkdtempSync(join(tmpdir(), "tskata-kernel-"));
  const making = `${target}.${process.pid}`;
  try {
    await run(LOG, "tar", ["-xf", SOURCE_ARCHIVE, "-C", work]);
    const tree = join(work, readdirSync(work)[0] ?? "");
    for (const patch of readdirSync(PATCHES).sort()) await apply(join(PATCHES, patch), tree);
    await configure(tree, further);
    // Same inputs, same kernel: nothing of this machine or minute goes in.
    const env = { KBUILD_BUILD_TIMESTAMP: "1970-01-01", KBUILD_BUILD_USER: "tskata", KBUILD_BUILD_HOST: "tskata" };
    await run(LOG, "make", [`-j${availableParallelism()}`, "vmlinux"], { cwd: tree, env });
    mkdirSync(making, { recursive: true });
    await run(LOG, "strip", ["-o", join(making, "vmlinux"), join(tree, "vmlinux")]);
    copyFileSync(join(tree, ".config"), join(making, "vmlinux.config"));
    renameSync(making, target);
    return `${(statSync(join(target, "vmlinux")).size / 2 ** 20).toFixed(1)} MiB`;
  } finally {
    rmSync(work, { recursive: true, force: true });
    rmSync(making, { recursive: true, force: true });
  }
}

async function apply(patch: string, tree: string): Promise<void> {
  try {
    await run(LOG, "patch", ["--strip=1", "--forward", `--input=${patch}`], { cwd: tree });
  } catch (error) {
    throw new Error(`${patch} does not fit ${SOURCE_PACKAGE} any more`, { cause: error });
  }
}

async function configure(tree: string, further: readonly string[]): Promise<void> {
  const own = readdirSync(FRAGMENTS).sort();
  const fragments = [...own.map((name) => join(FRAGMENTS, name)), ...further.map((name) => join(repository, name))];
  await run(LOG, "make", ["tinyconfig"], { cwd: tree });
  await run(LOG, "sh", ["scripts/kconfig/merge_config.sh", "-m", ".config", ...fragments], { cwd: tree });
  await run(LOG, "make", ["olddefconfig"], { cwd: tree });
  const asked = fragments.map((file) => readFileSync(file, "utf8")).join("\n");
  const refused = refusedSymbols(asked, readFileSync(join(tree, ".config"), "utf8"));
  if (refused.length > 0) throw new Error(`the kernel's configuration does not grant:\n  ${refused.join("\n  ")}`);
}

/**
 * Symbols of a fragment that the final .config does not hold. A symbol that is not set may be written or left out. Of a symbol that is asked for
 * twice the last line counts, as for merge_config.sh: a bench's fragment has what the product's leave out.
 */
export function refusedSymbols(fragment: string, config: string): string[] {
  const asked = new Map(fragment.split("\n").flatMap(parseLine));
  const granted = new Map(config.split("\n").flatMap(parseLine));
  return [...asked].flatMap(([symbol, value]) => {
    const got = granted.get(symbol) ?? "n";
    return got === value ? [] : [`${symbol}: asked for ${value}, got ${got}`];
  });
}

function parseLine(line: string): [string, string][] {
  const set = /^(CONFIG_\w+)=(.*)$/.exec(line);
  if (set?.[1] !== undefined) return [[set[1], set[2] ?? ""]];
  const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
  return unset?.[1] === undefined ? [] : [[unset[1], "n"]];
}
