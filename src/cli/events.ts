/** `tskata events`. */

import { TskataError } from "../base/errors.ts";
import { isAlive } from "../base/process.ts";
import { notRunning, withPod } from "../lifecycle/container.ts";
import { connectPod } from "../lifecycle/pod-client.ts";
import { sandboxRef } from "../lifecycle/pods.ts";
import { readState, type StateFile, statusOf } from "../oci/state-file.ts";
import { print } from "./output.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "events",
  summary: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Prints a JSON object a line: "stats" at every interval, "oom" when the guest's kernel has killed for memory. Ends with
the container.`,
  flags: [
    { name: "interval", kind: "duration", default: "5s", help: "set the stats collection interval" },
    { name: "stats", kind: "boolean", help: "display the container's stats then exit" },
  ],
  arguments: { least: 1, most: 1 },
  async run({ globals, flags, args }) {
    const id = args[0] ?? "";
    const interval = flags.milliseconds("interval") ?? 0;
    if (interval <= 0) throw new TskataError("invalid", "duration interval must be greater than 0");
    const state = readState(globals.root, id);
    if (statusOf(state) === "stopped") throw notRunning();
    if (flags.boolean("stats")) {
      await printStats(state);
      return 0;
    }
    await follow(state, interval);
    return 0;
  },
};

async function follow(state: StateFile, interval: number): Promise<void> {
  const ended = new AbortController();
  const timer = setInterval(() => void printStats(state).catch(() => {}), interval);
  try {
    await Promise.race([printEvents(state), untilStopped(state, ended.signal)]);
  } catch (error) {
    if (isAlive(sandboxRef(state))) throw error; // else the pod is gone, and the events with it
  } finally {
    ended.abort();
    clearInterval(timer);
  }
}

async function printStats(state: StateFile): Promise<void> {
  const data = await withPod(state, async (client) => await client.stats({ containerId: state.id }));
  print(`{"type":"stats","id":${JSON.stringify(state.id)},"data":${data}}\n`);
}

async function printEvents(state: StateFile): Promise<void> {
  using client = await connectPod(state.pod);
  for (let sequence = 0n; ; ) {
    const { events } = await client.events({ containerId: state.id, sequence });
    for (const event of events) {
      if (event.type === "exit") return;
      print(`${JSON.stringify({ type: event.type, id: state.id })}\n`);
      sequence = event.sequence;
    }
  }
}

const POLL_MS = 500;

/** A sandbox that is killed tells nothing. */
async function untilStopped(state: StateFile, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && isAlive(sandboxRef(state))) await new Promise((wake) => setTimeout(wake, POLL_MS));
}
