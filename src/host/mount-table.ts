/** The mounts of a mount namespace, as /proc/PID/mountinfo tells them (proc_pid_mountinfo(5)). */
import { readFileSync } from "node:fs";

export interface MountEntry {
  readonly id: number;
  /** "major:minor" of the filesystem. */
  readonly device: string;
  /** The folder or file of the filesystem that is shown. */
  readonly root: string;
  readonly point: string;
  /** The mount is, or its filesystem. */
  readonly readonly: boolean;
  readonly type: string;
  /** Of the filesystem. */
  readonly options: readonly string[];
}

export function readMounts(pid: number | "self" = "self"): MountEntry[] {
  return parseMounts(readFileSync(`/proc/${pid}/mountinfo`, "utf8"));
}

export function parseMounts(mountinfo: string): MountEntry[] {
  return mountinfo
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [left = "", right = ""] = line.split(" - ");
      const [id, , device = "", root = "", point = "", flags = ""] = left.split(" ");
      const [type = "", , superOptions = ""] = right.split(" ");
      const options = superOptions.split(",");
      const readonly = flags.split(",").includes("ro") || options.includes("ro");
      return { id: Number(id), device, root: unescapeMount(root), point: unescapeMount(point), readonly, type, options };
    });
}

/** Spaces, tabs, newlines and backslashes are octal in mountinfo. */
function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
