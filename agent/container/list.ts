/** Processes of a container as `ps` shows them. */
import { readFileSync } from "node:fs";
import type { ProcessInfo } from "../../src/protocols/generated/agent.ts";
import type { Container } from "./container.ts";

export function listProcesses(container: Container): ProcessInfo[] {
  return container.cgroup.processes().flatMap((pid) => {
    const facts = readProcess(pid);
    return facts === undefined ? [] : [{ ...facts, execId: container.execIdOf(pid), init: pid === container.init.pid }];
  });
}

function readProcess(pid: number): Omit<ProcessInfo, "execId" | "init"> | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
    return {
      pid: Number(field("NSpid").split(/\s+/).at(-1)),
      guestPid: pid,
      parent: Number(field("PPid")),
      uid: Number(field("Uid").split(/\s+/)[0]),
      command: commandLine === "" ? `[${field("Name")}]` : commandLine,
    };
  } catch {
    return undefined; // it has just ended
  }
}
