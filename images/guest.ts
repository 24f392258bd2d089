/**
 * The guest image: an erofs file system with node, the libraries it and the addon link to, the agent, and the folders that
 * the agent mounts over. Nothing else, and the same bytes from the same inputs.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { cachedStep, distFolder, hashOf, pinnedNode, run } from "../scripts/lib/steps.ts";

const EMPTY_FOLDERS = ["proc", "sys", "dev", "run", "tmp", "etc"];
/** erofs puts one into the superblock; a random one would be all that differs between two builds. */
const FILESYSTEM_UUID = "7473-6b61-7461";
/** virtio-pmem maps the image in huge pages. */
const ALIGNMENT = 2 * 1024 * 1024;

export async function buildGuestImage(): Promise<void> {
  const image = join(distFolder, "guest/image.erofs");
  const inputs = ["dist/guest/agent.cjs", "dist/guest/tskata-launcher", "dist/lib/tskata.node", "images/guest.ts"];
  const libraries = guestLibraries();
  const key = hashOf(...inputs, { text: `${statSync(pinnedNode).size} ${libraries.map((file) => `${file} ${statSync(file).size}`).join(" ")}` });
  await cachedStep("guest image", key, [image], async () => {
    await makeGuestImage(image);
    return `${(statSync(image).size / 2 ** 20).toFixed(1)} MiB`;
  });
}

/** Makes it from what is in dist, whatever was made before. */
export async function makeGuestImage(image: string): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "tskata-image-"));
  try {
    await fill(root, guestLibraries());
    await makeFilesystem(root, image);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function guestLibraries(): string[] {
  return librariesOf([pinnedNode, join(distFolder, "lib/tskata.node")]);
}

async function fill(root: string, libraries: readonly string[]): Promise<void> {
  for (const folder of [...EMPTY_FOLDERS, "bin", "agent"]) mkdirSync(join(root, folder));
  await run("guest-image", "strip", ["-o", join(root, "bin/node"), pinnedNode]);
  for (const file of libraries) {
    mkdirSync(join(root, dirname(file)), { recursive: true });
    copyFileSync(realpathSync(file), join(root, file));
  }
  for (const name of ["guest/agent.cjs", "guest/tskata-launcher", "lib/tskata.node"]) copyFileSync(join(distFolder, name), join(root, "agent", basename(name)));
  await run("guest-image", "strip", ["--strip-unneeded", join(root, "agent/tskata.node")]);
  // Programs of the guest's libraries look names up; there are none but root's.
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/:/bin/node\n");
  setModes(root, [join(root, "bin/node"), join(root, "agent/tskata-launcher")]);
}

/** The builder's umask is no input; and a container's user namespace maps no one who may pass a private folder. */
function setModes(root: string, programs: readonly string[]): void {
  chmodSync(root, 0o755);
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const executable = entry.isDirectory() || programs.includes(path) || /\.so(\.|$)/.test(entry.name);
    chmodSync(path, executable ? 0o755 : 0o644);
  }
}

async function makeFilesystem(root: string, image: string): Promise<void> {
  const draft = `${image}.new`;
  rmSync(draft, { force: true });
  const uuid = `00000000-0000-${FILESYSTEM_UUID}00000000`;
  await run("guest-image", "mkfs.erofs", ["-T0", "-U", uuid, "--all-root", draft, root]);
  truncateSync(draft, Math.ceil(statSync(draft).size / ALIGNMENT) * ALIGNMENT);
  renameSync(draft, image);
}

/** Paths of the shared libraries and the loader, as the programs name them. */
function librariesOf(programs: readonly string[]): string[] {
  const found = new Set<string>();
  for (const program of programs) {
    const { stdout, status } = spawnSync("ldd", [program], { encoding: "utf8" });
    if (status !== 0) throw new Error(`ldd ${program} failed`);
    for (const match of stdout.matchAll(/(?:=> )?(\/\S+) \(0x/g)) if (match[1] !== undefined) found.add(match[1]);
  }
  return [...found].sort();
}
