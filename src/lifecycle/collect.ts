/** Garbage: pods whose processes died, creates that were cut short, processes that work in folders which are gone. */
import { readlinkSync } from "node:fs";
import { errorChain } from "../base/errors.ts";
import { allPids, isAlive, processRef, signalProcess, waitForEnd } from "../base/process.ts";
import { readExit, readState, type StateFile, statusOf } from "../oci/state-file.ts";
import { containerIds, sandboxRef } from "./pods.ts";
import { removeContainer } from "./remove.ts";

const END_MS = 5000;
const EXIT_FILE_MS = 3000;
/** A create that takes longer from its folder to its state ends with an error when the folder has gone. */
const BETWEEN_MS = 1000;

export interface Collected {
  readonly what: string;
  readonly name: string;
  readonly why: string;
}

/** Finds and (unless `dryRun`) removes; every finding is told. A container that has just stopped in a healthy pod is not garbage. */
export async function collect(root: string, dryRun: boolean, tell: (found: Collected) => void, warn: (message: string) => void): Promise<void> {
  for (const id of containerIds(root)) {
    const why = await garbageReason(root, id);
    if (why === undefined) continue;
    tell({ what: "container", name: id, why });
    if (!dryRun) await removeContainer({ root, id, force: true, warn }).catch((error: unknown) => warn(`${id}: ${errorChain(error)}`));
  }
  for (const pid of strayProcesses(root)) {
    tell({ what: "process", name: String(pid), why: "works in a pod's folder that is gone" });
    const ref = processRef(pid);
    if (dryRun || ref === undefined) continue;
    signalProcess(ref, "SIGKILL");
    await waitForEnd(ref, END_MS);
  }
}

async function garbageReason(root: string, id: string): Promise<string | undefined> {
  let state: StateFile;
  try {
    state = await readStateTwice(root, id);
  } catch (error) {
    return `its state can't be read: ${errorChain(error)}`;
  }
  if (state.status === "creating") return isAlive(state.creator) ? undefined : "its create was cut short";
  if (!isAlive(sandboxRef(state))) return "its virtual machine is gone";
  return statusOf(state) === "stopped" ? await lossOf(state) : undefined;
}

/** A create makes the folder and then the state in it; one that is between the two is no garbage. */
async function readStateTwice(root: string, id: string): Promise<StateFile> {
  try {
    return readState(root, id);
  } catch {
    await new Promise((wake) => setTimeout(wake, BETWEEN_MS));
    return readState(root, id);
  }
}

/** The sandbox writes how a process ended, and why when that was not its own doing, shortly after its proxy has gone. */
async function lossOf(state: StateFile): Promise<string | undefined> {
  for (const end = performance.now() + EXIT_FILE_MS; performance.now() < end; await new Promise((wake) => setTimeout(wake, 50))) {
    const exit = readExit(state);
    if (exit !== undefined) return exit.reason;
  }
  return "its end was never told";
}

function strayProcesses(root: string): number[] {
  const prefix = `${root}/`;
  return allPids().filter((pid) => {
    try {
      const cwd = readlinkSync(`/proc/${pid}/cwd`);
      return cwd.startsWith(prefix) && cwd.endsWith("/pod (deleted)");
    } catch {
      return false;
    }
  });
}
