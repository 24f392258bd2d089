/** Mounts that a test makes on the host itself. */
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";

export class HostMounts {
  readonly #points: string[] = [];

  mount(point: string, ...args: string[]): void {
    mkdirSync(point, { recursive: true });
    const { status, stderr } = spawnSync("mount", [...args, point], { encoding: "utf8" });
    if (status !== 0) throw new Error(`mount ${args.join(" ")} ${point}: ${stderr}`);
    this.#points.push(point);
  }

  /** The last first; those that have gone by now are passed over. */
  unmountAll(): void {
    for (const point of this.#points.splice(0).reverse()) spawnSync("umount", ["-l", point]);
  }
}
