/** One container between its creation and its end: the verbs that need its state, in runc's words when it is the wrong one. */
import { join } from "node:path";
import { TskataError } from "../base/errors.ts";
import { containerPaths, podPaths } from "../base/paths.ts";
import { lock } from "../host/lock.ts";
import { readSpec } from "../oci/bundle.ts";
import { runHooksLeniently } from "../oci/hooks.ts";
import type { Resources, Spec } from "../oci/spec.ts";
import { hookState } from "../oci/state.ts";
import { readState, type StateFile, type Status, statusOf, writeState } from "../oci/state-file.ts";
import { SpanRecorder } from "../telemetry/spans.ts";
import { explaining } from "./explained.ts";
import { connectPod, type PodClient } from "./pod-client.ts";
import { aimFaultAt } from "./victims.ts";

/** The config.json the container was created from, as it was then. */
export function readContainerSpec(root: string, id: string): Spec {
  return readSpec(join(containerPaths(root, id).folder, "spec.json"));
}

/** Runs `work` while no other command changes this container; the state is read under the lock. */
export async function withContainer<T>(root: string, id: string, work: (state: StateFile, status: Status) => Promise<T>): Promise<T> {
  readState(root, id); // "does not exist" of a folder that is none, too
  using _lock = await lock(containerPaths(root, id).folder, `container ${id}`);
  const state = readState(root, id);
  return await work(state, statusOf(state));
}

export async function withPod<T>(state: StateFile, work: (client: PodClient) => Promise<T>): Promise<T> {
  using client = await connectPod(state.pod);
  return await work(client);
}

/** Measures a call of a verb for the pod's timeline. */
export function podSpans(root: string, state: StateFile): SpanRecorder {
  const spans = new SpanRecorder("cli");
  aimFaultAt(root, state.id, state.pod.folder);
  spans.writeTo(podPaths(state.pod.folder).spans);
  return spans;
}

export async function startContainer(root: string, id: string, warn: (message: string) => void): Promise<void> {
  const spans = podSpans(root, readState(root, id));
  const endAll = spans.begin("start");
  const started = await withContainer(root, id, async (state, status) => {
    checkStartable(status);
    await explaining(state.pod.folder, () =>
      spans.measure("start in the guest", () => withPod(state, async (client) => await client.start({ containerId: id }))),
    );
    const running: StateFile = { ...state, status: "running" };
    writeState(root, running);
    return running;
  });
  const { poststart } = readContainerSpec(root, id).hooks ?? {};
  await spans.measure("poststart hooks", () => runHooksLeniently(poststart, hookState(started, "running"), started.bundle, warn));
  endAll();
}

function checkStartable(status: Status): void {
  switch (status) {
    case "created":
      return;
    case "stopped":
      throw new TskataError("wrong-state", "cannot start a container that has stopped");
    case "running":
      throw new TskataError("wrong-state", "cannot start an already running container");
    default:
      throw new TskataError("wrong-state", `cannot start a container in the ${status} state`);
  }
}

export interface KillOptions {
  readonly signal: number;
  /** Every process in the container. */
  readonly all: boolean;
}

/** The sandbox may hang or have gone; who asks for SIGKILL must get it. */
const KILL_TIMEOUT_MS = 10_000;

export async function killContainer(root: string, id: string, { signal, all }: KillOptions): Promise<void> {
  const state = readState(root, id);
  if (statusOf(state) === "stopped") {
    if (all) return; // as runc: nothing is left to signal
    throw notRunning();
  }
  if (signal < 0 || signal > 64) throw new TskataError("invalid", "unable to signal init: invalid argument");
  const spans = podSpans(root, state);
  const endAll = spans.begin("kill");
  try {
    const request = { containerId: id, signal, all };
    await explaining(state.pod.folder, () =>
      spans.measure("kill in the guest", () => withPod(state, async (client) => await client.kill(request, KILL_TIMEOUT_MS))),
    );
    endAll();
  } catch (error) {
    if (statusOf(readState(root, id)) === "stopped") {
      if (signal === 9) return;
      throw notRunning();
    }
    throw error;
  }
}

export async function pauseContainer(root: string, id: string): Promise<void> {
  await withContainer(root, id, async (state, status) => {
    if (status !== "running" && status !== "created") throw notRunning();
    await withPod(state, async (client) => await client.pause({ containerId: id }));
    writeState(root, { ...state, status: "paused", pausedFrom: status });
  });
}

export async function resumeContainer(root: string, id: string): Promise<void> {
  await withContainer(root, id, async (state, status) => {
    if (status !== "paused") throw new TskataError("wrong-state", "container not paused");
    await withPod(state, async (client) => await client.resume({ containerId: id }));
    const { pausedFrom = "running", ...rest } = state;
    writeState(root, { ...rest, status: pausedFrom });
  });
}

export async function updateContainer(root: string, id: string, resources: Resources): Promise<void> {
  await withContainer(root, id, async (state, status) => {
    if (status === "stopped") throw notRunning();
    await withPod(state, async (client) => await client.update({ containerId: id, resources: Buffer.from(JSON.stringify(resources)) }));
  });
}

export function notRunning(): TskataError {
  return new TskataError("wrong-state", "container not running");
}
