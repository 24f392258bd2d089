/** Mounts that a test makes on the host itself. */
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

export class HostMounts {
  readonly #points: string[] = [];

  mount(point: string, ...args: string[]): void {
    mkdirSync(point, { recursive: true });
    const { status, stderr } = spawnSync("mount", [...args, point], { encoding: "utf8" });
    if (status !== 0) throw new Error(`mount ${args.join(" ")} ${point}: ${stderr}`);
    this.#points.push(point);
  }

  /** Mounts `folder`/rootfs over the folder `lower`, as Docker and containerd mount a root filesystem over an image. */
  overlay(lower: string, folder: string, source = "overlay"): void {
    const [rootfs, upper, work] = ["rootfs", "upper", "work"].map((name) => join(folder, name)) as [string, string, string];
    for (const path of [upper, work]) mkdirSync(path, { recursive: true });
    this.mount(rootfs, "-t", "overlay", "-o", `lowerdir=${lower},upperdir=${upper},workdir=${work}`, source);
  }

  /** The last first; those that have gone by now are passed over. */
  unmountAll(): void {
    for (const point of this.#points.splice(0).reverse()) spawnSync("umount", ["-l", point]);
  }
}
