/**
 * Fault points, for tests of crashes: every span's begin and end is one, where a process of the pod can be killed. docs/reliability.md.
 *
 *   TSKATA_FAULT=<cli|sandbox>:<span>:<begin|end>[:<cli|sandbox|keeper|hypervisor|proxy>]
 *
 * The variable is the privileged command's own and nothing of a container can set it: no config, annotation or hook changes that environment.
 * It is handed on to the sandbox process that the command starts.
 *
 * The command line kills the victim (by default the process that got there) and goes on when it has ended. The sandbox process can't: as
 * number 1 of its pid namespace it takes no SIGKILL from within, and its jail has no kill(2). It puts a file into the pod's folder and
 * stands still until the file is gone; the command line that waits for it, and has the same variable, sees the file and kills.
 */
import { closeSync, constants, openSync, rmSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { pauseSync } from "../base/pause.ts";
import { isEnding, processRef } from "../base/process.ts";
import { writeStderr } from "./logger.ts";

export const VICTIMS = ["cli", "sandbox", "keeper", "hypervisor", "proxy"] as const;
export type Victim = (typeof VICTIMS)[number];
export type Edge = "begin" | "end";

export interface Fault {
  readonly process: "cli" | "sandbox";
  readonly span: string;
  readonly edge: Edge;
  readonly victim: Victim;
}

export const FAULT_VARIABLE = "TSKATA_FAULT";

/** In the pod's folder, while the sandbox process stands still. */
const STANDING = "fault";
/** Of a sandbox process whose command has not the variable, or has gone. */
const STANDING_MS = 60_000;
const POLL_MS = 2;

export function parseFault(text: string | undefined): Fault | undefined {
  if (text === undefined || text === "") return undefined;
  const [process, span = "", edge, victim = process, ...more] = text.split(":");
  const good = (process === "cli" || process === "sandbox") && span !== "" && (edge === "begin" || edge === "end") && more.length === 0;
  const known = VICTIMS.find((name) => name === victim);
  if (good && known !== undefined) return { process, span, edge, victim: known };
  throw new TskataError("invalid", `${FAULT_VARIABLE}="${text}": expected <cli|sandbox>:<span>:<begin|end>[:<${VICTIMS.join("|")}>]`);
}

/** The point that the environment selects for this process. */
export function selectedFault(process: string, text: string | undefined = globalThis.process.env[FAULT_VARIABLE]): Fault | undefined {
  const fault = parseFault(text);
  return fault?.process === process ? fault : undefined;
}

/** Who the command line's victims are, asked when the point is reached. */
export type FindVictim = (victim: Exclude<Victim, "cli">) => number | undefined;

let find: FindVictim = () => undefined;

/** The command line: which pod this is about. Watches for its sandbox process standing still where the variable says so. */
export function aimFault(podFolder: string, victims: FindVictim): void {
  find = victims;
  const fault = selectedFault("sandbox");
  if (fault === undefined) return;
  const file = `${podFolder}/${STANDING}`;
  const watch = setInterval(() => {
    if (!isThere(file)) return;
    clearInterval(watch);
    if (fault.victim === "cli") rmSync(file);
    strike(fault);
    rmSync(file, { force: true });
  }, POLL_MS);
  watch.unref();
}

export function reachFault(fault: Fault): void {
  if (fault.process === "cli") strike(fault);
  else standStill();
}

function strike({ process: reached, span, edge, victim }: Fault): void {
  const pid = victim === "cli" ? process.pid : find(victim);
  const ref = pid === undefined ? undefined : processRef(pid);
  writeStderr(`${FAULT_VARIABLE}: ${reached}:${span}:${edge}: ${ref === undefined ? `there is no ${victim}` : `kills ${victim} ${ref.pid}`}\n`);
  if (ref === undefined) return;
  process.kill(ref.pid, "SIGKILL");
  while (!isEnding(ref)) pauseSync(POLL_MS);
}

function standStill(): void {
  closeSync(openSync(STANDING, constants.O_CREAT | constants.O_WRONLY | constants.O_NOFOLLOW, 0o600));
  for (const end = performance.now() + STANDING_MS; isThere(STANDING) && performance.now() < end; ) pauseSync(POLL_MS);
}

/** By open(2), which the sandbox process does anyway: its jail's list is not made longer for this. */
function isThere(file: string): boolean {
  try {
    closeSync(openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK));
    return true;
  } catch {
    return false;
  }
}
