/**
 * Removing a container and, with its pod's last one, the pod: every step works on what is left after any crash.
 *
 * The order matters: first nothing runs, then the guest forgets the container, then the pod's processes go, then the
 * cgroups they were in, last the folder, so that a delete that is cut short can be called again.
 */
import { existsSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { errorChain, TskataError } from "../base/errors.ts";
import { cgroupName, containerPaths, podPaths } from "../base/paths.ts";
import { allPids, isAlive, type ProcessRef, processRef, signalProcess, waitForEnd } from "../base/process.ts";
import { cgroupMembers, cgroupPath, hierarchies, removeCgroup } from "../host/cgroup.ts";
import { lock } from "../host/lock.ts";
import { removeTree } from "../host/trees.ts";
import { runHooksLeniently } from "../oci/hooks.ts";
import type { Spec } from "../oci/spec.ts";
import { hookState } from "../oci/state.ts";
import { checkId, exitPath, readState, type StateFile, type Status, statusOf } from "../oci/state-file.ts";
import { SpanRecorder } from "../telemetry/spans.ts";
import { readContainerSpec, withPod } from "./container.ts";
import { removePodFolder } from "./pod-folder.ts";
import { podMembers, sandboxRef } from "./pods.ts";
import { aimFaultAt } from "./victims.ts";

/** For a pod whose state does not tell: the option's default. */
const STOP_MS = 10_000;
/** For the answer, and for the process's end after the machine's. */
const GRACE_MS = 2000;
const CALL_MS = 10_000;
const END_MS = 10_000;

export interface RemoveOptions {
  readonly root: string;
  readonly id: string;
  readonly force: boolean;
  readonly warn: (message: string) => void;
}

export async function removeContainer(options: RemoveOptions): Promise<void> {
  const { root, id, force } = options;
  checkId(id);
  let state: StateFile;
  try {
    state = readState(root, id);
  } catch (error) {
    if (!force || !existsSync(containerPaths(root, id).folder)) {
      if (force && error instanceof TskataError && error.code === "not-found") return;
      throw error;
    }
    await removeUnreadable(options);
    return;
  }
  try {
    await removeKnown(options, state);
  } catch (error) {
    // Another command has removed it while this one waited, or just before: `run` does so when its container ends.
    if (!(error instanceof TskataError && error.code === "not-found")) throw error;
    if (!force) throw new TskataError("not-found", "container does not exist");
  }
}

async function removeKnown(options: RemoveOptions, before: StateFile): Promise<void> {
  const { root, id, force, warn } = options;
  checkDeletable(id, statusOf(before), force);
  const spec = specOrUndefined(root, id);
  aimFaultAt(root, id, before.pod.folder);
  const spans = new SpanRecorder("cli"); // not written: the file goes with the pod
  const endAll = spans.begin("delete");
  using _lock = existsSync(before.pod.folder) ? await lock(before.pod.folder, `pod ${before.pod.id}`) : undefined;
  const state = readState(root, id);
  await spans.measure("end the processes", () => endProcesses(state));
  const others = podMembers(root, state.pod.folder).filter((other) => other.id !== id);
  if (others.length === 0) await spans.measure("end the pod", () => endPod(state, warn));
  else await spans.measure("leave the pod", () => leavePod(state, warn));
  await spans.measure("remove the cgroups", () => removeCgroups(root, state, others.length > 0, warn));
  await spans.measure("remove the folders", () => removeFolders(root, state, others.length > 0));
  const folder = existsSync(state.bundle) ? state.bundle : "/";
  await spans.measure("poststop hooks", () => runHooksLeniently(spec?.hooks?.poststop, hookState(state, "stopped"), folder, warn));
  endAll();
}

function checkDeletable(id: string, status: Status, force: boolean): void {
  if (status === "stopped" || force) return;
  throw new TskataError("wrong-state", `cannot delete container ${id} that is not stopped: ${status}`);
}

function specOrUndefined(root: string, id: string): Spec | undefined {
  try {
    return readContainerSpec(root, id);
  } catch {
    return undefined; // a create that was cut short before it wrote it: no hook of it has run
  }
}

/** Kills the container's init by its stand-in: the sandbox then kills the guest process. A create under way is killed, too. */
async function endProcesses(state: StateFile): Promise<void> {
  if (state.status === "creating") await end(state.creator);
  if (!isAlive(state.proxy)) return;
  try {
    await withPod(state, async (client) => await client.kill({ containerId: state.id, signal: 9, all: true }, CALL_MS));
    if (state.proxy !== undefined && (await waitForEnd(state.proxy, END_MS))) return;
  } catch {
    // The sandbox is gone or hangs: then its stand-in is told itself.
  }
  if (state.proxy !== undefined) await end(state.proxy);
}

async function end(ref: ProcessRef): Promise<void> {
  if (ref.pid === process.pid) return;
  signalProcess(ref, "SIGKILL");
  await waitForEnd(ref, END_MS);
}

/** The pod stays: the guest forgets this container, and its trees leave the shared tree. */
async function leavePod(state: StateFile, warn: (message: string) => void): Promise<void> {
  const sandbox = sandboxRef(state);
  if (!isAlive(sandbox) || sandbox === undefined) return;
  await attempt(warn, async () => await withPod(state, async (client) => await client.delete({ containerId: state.id, force: true }, CALL_MS)));
  for (const target of state.sharedTargets.toReversed()) {
    await attempt(warn, async () => await removeTree(sandbox.pid, podPaths(state.pod.folder).shared, target));
  }
  rmSync(exitPath(state), { force: true });
}

/** Ends the machine: asked first, killed after the deadline. */
async function endPod(state: StateFile, warn: (message: string) => void): Promise<void> {
  const sandbox = sandboxRef(state);
  if (sandbox !== undefined && isAlive(sandbox)) {
    try {
      const timeoutMs = state.pod.stopTimeoutMs ?? STOP_MS;
      await withPod(state, async (client) => await client.shutdown({ timeoutMs }, timeoutMs + GRACE_MS));
      await waitForEnd(sandbox, timeoutMs + GRACE_MS);
    } catch (error) {
      if (isAlive(sandbox)) warn(`the virtual machine did not stop when asked and is killed: ${errorChain(error)}`);
    }
    await end(sandbox);
  }
  await endMembers([...state.pod.cgroups, ...state.cgroups], state.pod.folder);
}

/** Processes still in cgroups that were made for this pod alone, or working in its folder: a hypervisor without its parent. */
async function endMembers(made: readonly string[], podFolder: string): Promise<void> {
  const leaves = made.filter((folder) => existsSync(join(folder, "cgroup.procs")) && !hasChildren(folder));
  const pids = new Set([...cgroupMembers(leaves), ...processesIn(podFolder)]);
  pids.delete(process.pid);
  const refs = [...pids].flatMap((pid) => processRef(pid) ?? []);
  for (const ref of refs) await end(ref);
}

function hasChildren(folder: string): boolean {
  return readdirSync(folder, { withFileTypes: true }).some((entry) => entry.isDirectory());
}

/** Sandbox and hypervisor have the pod's folder as their working folder. */
export function processesIn(folder: string): number[] {
  return allPids().filter((pid) => {
    try {
      const cwd = readlinkSync(`/proc/${pid}/cwd`).replace(/ \(deleted\)$/, "");
      return cwd === folder;
    } catch {
      return false; // gone meanwhile, or a kernel thread
    }
  });
}

/** The cgroup of a pod's first container holds the machine. */
function removeCgroups(root: string, state: StateFile, podStays: boolean, warn: (message: string) => void): void {
  const ownsPod = state.pod.folder === containerPaths(root, state.id).pod;
  const mine = ownsPod && podStays ? [] : [...state.cgroups, ...(podStays ? [] : state.pod.cgroups)];
  for (const left of removeCgroup(mine)) warn(`the cgroup ${left} still holds processes`);
}

/** The folder of a pod's first container stays while others use the machine in it. */
function removeFolders(root: string, state: StateFile, podStays: boolean): void {
  const { folder, pod } = containerPaths(root, state.id);
  const ownsPod = state.pod.folder === pod;
  if (ownsPod && podStays) {
    for (const name of readdirSync(folder)) if (name !== "pod") rmSync(join(folder, name), { recursive: true, force: true });
    return;
  }
  removePodFolder(folder);
  if (!podStays && !ownsPod) removePodFolder(dirname(state.pod.folder));
}

/** State file damaged or never written: what belongs to the container is found by its folder and its cgroup's usual place. */
async function removeUnreadable({ root, id, warn }: RemoveOptions): Promise<void> {
  const { folder, pod } = containerPaths(root, id);
  const users = podMembers(root, pod).filter((other) => other.id !== id);
  if (users.length > 0) throw new TskataError("wrong-state", `the pod in ${pod} is still used by ${users.map((user) => user.id).join(", ")}`);
  const cgroups = guessCgroups(specOrUndefined(root, id), cgroupName(root, id));
  await endMembers(cgroups, pod);
  for (const left of removeCgroup(cgroups)) warn(`the cgroup ${left} still holds processes`);
  removePodFolder(folder);
}

function guessCgroups(spec: Spec | undefined, name: string): string[] {
  const paths = [false, true].flatMap((systemd) => {
    try {
      return [cgroupPath(spec?.linux?.cgroupsPath, name, systemd)];
    } catch {
      return []; // not of that form
    }
  });
  return hierarchies().flatMap(({ mountPoint }) => paths.map((path) => join(mountPoint, path)).filter((path) => existsSync(path)));
}

async function attempt(warn: (message: string) => void, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    warn(errorChain(error));
  }
}
