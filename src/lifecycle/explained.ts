/** A failure told so that its reader can act on it: what was seen, the likely cause, what to do, how the machine ended, the logs' last lines. */
import { existsSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { errorChain, TskataError } from "../base/errors.ts";
import { type Excerpt, explanation, type FailureCode, FailureError, STILL_RUNS, shortage } from "../base/failures.ts";
import { logTail, plainText } from "../base/log-tail.ts";
import { podPaths } from "../base/paths.ts";
import { readPodFile } from "../base/pod-file.ts";
import { machineInWords, parsePodConfig } from "../control/pod-config.ts";
import { checksumProblem } from "../host/guest-files.ts";
import { failedPhase } from "../telemetry/spans.ts";

export interface Surroundings {
  /** The pod's, as long as it is there. */
  readonly podFolder: string;
  /** What the machine was started with. */
  readonly guestFiles: readonly string[];
}

/** What a guest comes to whose files are damaged. */
const SUSPECT: readonly FailureCode[] = ["kernel-panic", "agent-silent", "agent-crashed", "guest-restarted", "guest-out-of-memory", "hypervisor-failed"];
/** Where logs tell nothing more. */
const NO_LOGS: readonly FailureCode[] = ["disk-full", "too-many-open-files", "kvm-refused"];

/** The error with its explanation; as it is when it is no failure of the pod but an answer to what was asked. */
export function explained(error: unknown, { podFolder, guestFiles }: Surroundings): unknown {
  const seen = asFailure(error, podFolder);
  if (seen === undefined) return error;
  const { failure, message, machine } = SUSPECT.includes(seen.failure) ? withFilesChecked(seen, guestFiles) : seen;
  const excerpts = NO_LOGS.includes(failure) ? [] : logs(podFolder);
  const phase = seen.phase ?? failedPhase(error);
  const what = failure === "hypervisor-failed" ? withLastWord(message, podFolder) : message;
  return new FailureError(failure, `${oneLine(what)}\n${explanation(failure, machine, excerpts)}`, { machine, phase });
}

/** A measured request to a pod that runs: its failure says in which phase it came, and all the rest. */
export async function explaining<T>(podFolder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw explained(error, { podFolder, guestFiles: [] });
  }
}

function asFailure(error: unknown, podFolder: string): FailureError | undefined {
  const short = shortage(error);
  if (short !== undefined) return new FailureError(short, errorChain(error));
  if (error instanceof FailureError) {
    // Whoever died for want of room could not write that down.
    const full = error.failure === "sandbox-died" && isFull(podFolder);
    return full ? new FailureError("disk-full", `no space left on the file system of ${podFolder}: ${error.message}`) : error;
  }
  if (!(error instanceof TskataError) || error.code !== "timeout") return undefined;
  return new FailureError("time-out", errorChain(error), { machine: stillRunning(podFolder) });
}

/** Of a running pod that gave no answer: had its machine ended, that would be the failure. */
function stillRunning(podFolder: string): string | undefined {
  try {
    return `${STILL_RUNS}; ${machineInWords(parsePodConfig(readPodFile(podPaths(podFolder).config)))}`;
  } catch {
    return undefined; // without its configuration nothing is known of it
  }
}

/** Hashed only now: before each start it would cost more than the start. */
function withFilesChecked(seen: FailureError, guestFiles: readonly string[]): FailureError {
  const problem = guestFiles.map(checksumProblem).find((found) => found !== undefined);
  return problem === undefined ? seen : new FailureError("image-corrupt", `${problem}; ${seen.message}`, { machine: seen.machine });
}

/** QEMU's last line is its reason. */
function withLastWord(message: string, podFolder: string): string {
  const said = logTail(podPaths(podFolder).hypervisorLog, 1);
  return said === "" ? message : `${message}: ${said}`;
}

function logs(podFolder: string): Excerpt[] {
  const paths = podPaths(podFolder);
  return [
    ["sandbox process's errors", logTail(paths.sandboxErrors)],
    ["hypervisor's log", logTail(paths.hypervisorLog)],
    ["guest console", logTail(paths.consoleLog)],
  ];
}

function isFull(folder: string): boolean {
  try {
    const { bavail, files, ffree } = statfsSync(existsSync(folder) ? folder : dirname(folder));
    return bavail === 0 || (files > 0 && ffree === 0);
  } catch {
    return false;
  }
}

function oneLine(text: string): string {
  return plainText(text)
    .trim()
    .replace(/\s*\n\s*/g, "; ");
}
