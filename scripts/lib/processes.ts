/** Processes as /proc shows them: for measurements and tests. */
import { readdirSync, readFileSync } from "node:fs";

/** A process and its children's children. */
export function family(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(" "));
  return [pid, ...children.filter((child) => child !== "").flatMap((child) => family(Number(child)))];
}
