/** A command that stays while a guest process runs: signals and window sizes go there, its end becomes ours. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { titledTail } from "../base/log-tail.ts";
import { podPaths } from "../base/paths.ts";
import { readPodFile } from "../base/pod-file.ts";
import { isEnding, signalProcess } from "../base/process.ts";
import { native } from "../native.ts";
import { readExit, type StateFile } from "../oci/state-file.ts";
import { sandboxRef } from "./pods.ts";
import type { ProxyProcess } from "./proxy.ts";

/** As runc: all that can be caught, but those about our own children and terminal. */
const FORWARDED: readonly NodeJS.Signals[] = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGALRM",
  "SIGTERM",
  "SIGCONT",
  "SIGTSTP",
  "SIGTTIN",
  "SIGTTOU",
  "SIGURG",
  "SIGXCPU",
  "SIGXFSZ",
  "SIGVTALRM",
  "SIGIO",
  "SIGPWR",
];

export interface Attendance {
  readonly proxy: ProxyProcess;
  /** Ours is a terminal and the guest process has it: raw until the end. */
  readonly terminal: boolean;
  resize(rows: number, columns: number): Promise<void>;
}

/** Resolves with the exit code: the process's, or 128 and the signal that ended it. */
export async function attend({ proxy, terminal, resize }: Attendance): Promise<{ code: number; signal: NodeJS.Signals | undefined }> {
  const forward = (name: NodeJS.Signals): void => void signalProcess(proxy.ref, name);
  const onSize = (): void => {
    const { rows, columns } = native().getWindowSize(0);
    resize(rows, columns).catch(() => {}); // it has just ended
  };
  const tty = terminal && native().isatty(0);
  const restore = tty ? native().makeRaw(0) : (): void => {};
  for (const name of FORWARDED) process.on(name, forward);
  if (tty) {
    process.on("SIGWINCH", onSize);
    onSize(); // a change between the process's start and now was told to nobody
  }
  try {
    return await proxy.ended;
  } finally {
    restore();
    for (const name of FORWARDED) process.off(name, forward);
    process.off("SIGWINCH", onSize);
  }
}

/** The size of the terminal we would give away, if we have one. */
export function terminalSize(): { height: number; width: number } | undefined {
  if (!native().isatty(0)) return undefined;
  const { rows, columns } = native().getWindowSize(0);
  return rows === 0 && columns === 0 ? undefined : { height: rows, width: columns };
}

/** Why a process was lost when it was not its own doing: the machine or the sandbox died. Undefined when neither did. */
export function lossReason(state: StateFile): string | undefined {
  const paths = podPaths(state.pod.folder);
  const failure = join(paths.folder, "failure");
  if (existsSync(failure)) return readPodFile(failure);
  const exit = readExit(state);
  if (exit !== undefined) return exit.reason;
  const sandbox = sandboxRef(state);
  // Without its folder the pod was not lost, but deleted by another command.
  if (!existsSync(paths.folder) || (sandbox !== undefined && !isEnding(sandbox) && takesCalls(paths.control))) return undefined;
  return `the sandbox process of the virtual machine died${titledTail("sandbox", paths.sandboxErrors)}${titledTail("guest console", paths.consoleLog)}`;
}

/** A process that is killed loses its sockets, and its proxies with them, before all of it shows its end. */
function takesCalls(control: string): boolean {
  try {
    native().closeFd(native().connectUnix(control, "stream"));
    return true;
  } catch {
    return false;
  }
}
