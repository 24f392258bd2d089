/** Processes of a pod as the host's /proc shows them. */
import { readFileSync } from "node:fs";

/** The child of the sandbox process that is QEMU; beside it is the keeper of handles. */
export function qemuOf(sandbox: number): number {
  const children = readFileSync(`/proc/${sandbox}/task/${sandbox}/children`, "utf8").trim().split(" ").map(Number);
  const found = children.find((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu"));
  if (found === undefined) throw new Error(`no qemu below ${sandbox}: ${children.join(" ")}`);
  return found;
}
