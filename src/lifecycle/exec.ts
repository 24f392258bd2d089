/** Another process in a running container. */
import { TskataError } from "../base/errors.ts";
import { installation } from "../base/paths.ts";
import { randomHex } from "../base/random.ts";
import type { Process } from "../oci/spec.ts";
import { readState, type StateFile, statusOf } from "../oci/state-file.ts";
import { podSpans } from "./container.ts";
import { writePidFile } from "./create.ts";
import { explaining } from "./explained.ts";
import type { Interrupt } from "./interrupt.ts";
import { connectPod, handOver } from "./pod-client.ts";
import { type ProxyProcess, startProxy } from "./proxy.ts";
import { planStdio } from "./stdio.ts";

export interface ExecOptions {
  readonly root: string;
  readonly id: string;
  readonly process: Process;
  readonly consoleSocket: string | undefined;
  readonly detach: boolean;
  readonly pidFile: string | undefined;
  readonly subCgroup: string;
  readonly ignorePaused: boolean;
  readonly interrupt: Interrupt;
}

export interface Executed {
  readonly state: StateFile;
  readonly execId: string;
  readonly proxy: ProxyProcess;
}

export async function execInContainer(options: ExecOptions): Promise<Executed> {
  const { root, id, process, interrupt } = options;
  const state = readState(root, id);
  checkRunning(state, options.ignorePaused);
  const spans = podSpans(root, state);
  const endAll = spans.begin("exec");
  await using undo = new AsyncDisposableStack();
  using client = await connectPod(state.pod);
  const stdio = planStdio({ terminal: process.terminal ?? false, consoleSocket: options.consoleSocket, detach: options.detach, size: process.consoleSize });
  using _stdio = { [Symbol.dispose]: () => stdio.close() };
  const proxy = await spans.measure("start the proxy", () => startProxy(installation().proxy, state.cgroupFolders, stdio.slave));
  undo.defer(() => proxy.kill());
  using _socket = { [Symbol.dispose]: () => proxy.closeSocket() };
  const execId = randomHex(16);
  if (options.pidFile !== undefined) writePidFile(options.pidFile, proxy.ref.pid, undo);
  const handoff = await spans.measure("hand over the descriptors", () => handOver(state.pod.folder, stdio, proxy.socket));
  const request = { containerId: id, execId, process: Buffer.from(JSON.stringify(process)), handoff, subCgroup: options.subCgroup };
  const executed = explaining(state.pod.folder, () => spans.measure("exec in the guest", () => client.exec(request)));
  await interrupt.race(Promise.all([executed, proxy.ready]));
  endAll();
  undo.move();
  return { state, execId, proxy };
}

function checkRunning(state: StateFile, ignorePaused: boolean): void {
  const status = statusOf(state);
  if (status === "stopped") throw new TskataError("wrong-state", "cannot exec in a stopped container");
  if (status === "paused" && !ignorePaused) throw new TskataError("wrong-state", "cannot exec in a paused container (use --ignore-paused to override)");
}
