/** The pod's containers and processes as the sandbox has them: requests go to the agent, ends come back. */
import { renameSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import type { AgentClient } from "../agent-client/agent-client.ts";
import { errorChain, TskataError } from "../base/errors.ts";
import type { VirtioDevice } from "../native.ts";
import { ContainersService, ProcessesService, type WaitResponse } from "../protocols/generated/agent.ts";
import type { CreateRequest, CreateResponse, ExecRequest, KillRequest, ProcessInfo, ResizeRequest } from "../protocols/generated/control.ts";
import type { SpanRecorder } from "../telemetry/spans.ts";
import type { EventLog } from "./events.ts";
import { closeAll, type Descriptors, type Handoffs } from "./handoffs.ts";
import { HostProcess } from "./host-process.ts";
import type { Log } from "./log.ts";

const SIGKILL = 9;

interface ContainerRecord {
  readonly id: string;
  readonly exitFile: string;
  /** By exec id; "" is the init. */
  readonly processes: Map<string, HostProcess>;
  /** Why it ended, when that was not its own doing. */
  reason?: string;
  /** Its end has been written down: there is one. */
  ended?: boolean;
}

export interface ContainersOptions {
  readonly agent: AgentClient;
  readonly vsock: VirtioDevice;
  readonly handoffs: Handoffs;
  readonly events: EventLog;
  readonly spans: SpanRecorder;
  readonly log: Log;
  /** The longest that the agent may take for one request. */
  readonly callMs: number;
}

export class Containers {
  readonly #agent: AgentClient;
  readonly #vsock: VirtioDevice;
  readonly #handoffs: Handoffs;
  readonly #events: EventLog;
  readonly #spans: SpanRecorder;
  readonly #log: Log;
  readonly #callMs: number;
  readonly #records = new Map<string, ContainerRecord>();
  /** Why nothing works any more. */
  #failure: string | undefined;

  constructor({ agent, vsock, handoffs, events, spans, log, callMs }: ContainersOptions) {
    this.#agent = agent;
    this.#vsock = vsock;
    this.#handoffs = handoffs;
    this.#events = events;
    this.#spans = spans;
    this.#log = log;
    this.#callMs = callMs;
  }

  async create(request: CreateRequest): Promise<CreateResponse> {
    const { containerId: id, exitFile } = request;
    const fds = await this.#take(request.handoff);
    const host = await this.#spans.measure("connect the streams", () => HostProcess.connect(this.#vsock, fds, this.#callMs));
    try {
      if (this.#records.has(id)) throw new TskataError("exists", `container ${id} exists in this pod`);
      const inGuest = {
        containerId: id,
        spec: request.spec,
        stdio: host.stdio,
        sharedNamespaces: request.sharedNamespaces,
        noPivot: request.noPivot,
        noNewKeyring: request.noNewKeyring,
        bundle: request.bundle,
      };
      const { pid } = await this.#spans.measure("launch in the guest", () => this.#agent.call(ContainersService.create, inGuest, this.#callMs));
      this.#records.set(id, { id, exitFile, processes: new Map([["", host]]) });
      this.#begin(id, "", host);
      return { guestPid: pid };
    } catch (error) {
      host.abandon();
      throw error;
    }
  }

  async start(id: string): Promise<void> {
    const host = this.#process(id, "");
    await this.#agent.call(ContainersService.start, { containerId: id }, this.#callMs);
    host.beginInput();
  }

  async exec({ containerId: id, execId, process, subCgroup, handoff }: ExecRequest): Promise<CreateResponse> {
    const fds = await this.#take(handoff);
    const host = await this.#spans.measure("connect the streams of an exec", () => HostProcess.connect(this.#vsock, fds, this.#callMs));
    try {
      const record = this.#record(id);
      const request = { containerId: id, execId, process, subCgroup, stdio: host.stdio };
      const { pid } = await this.#spans.measure("launch the exec in the guest", () => this.#agent.call(ProcessesService.exec, request, this.#callMs));
      record.processes.set(execId, host);
      this.#begin(id, execId, host);
      host.beginInput();
      return { guestPid: pid };
    } catch (error) {
      host.abandon();
      // It runs, but nobody is to hear of it.
      if (this.#records.get(id)?.processes.has(execId) === true) {
        this.#quietly(this.kill({ containerId: id, execId, signal: SIGKILL, all: false }));
      }
      throw error;
    }
  }

  async #take(handoff: CreateRequest["handoff"]): Promise<Descriptors> {
    const fds = await this.#handoffs.take(handoff);
    if (this.#failure === undefined) return fds;
    closeAll(Object.values(fds));
    throw new TskataError("unavailable", this.#failure);
  }

  #begin(id: string, execId: string, host: HostProcess): void {
    void this.#waitFor(id, execId, host);
    host.begin({
      signal: (signal) => this.#quietly(this.kill({ containerId: id, execId, signal, all: false })),
      resize: (rows, columns) => this.#quietly(this.resize({ containerId: id, execId, rows, columns })),
      gone: () => {
        const record = this.#records.get(id);
        if (execId === "" && record !== undefined) record.reason = "the process that stood for it on the host was killed";
        this.#quietly(this.kill({ containerId: id, execId, signal: SIGKILL, all: false }));
      },
    });
  }

  /** A signal for a process that has just ended is no news. */
  #quietly(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#log.debug({ error: errorChain(error) }, "request of a proxy"));
  }

  async #waitFor(id: string, execId: string, host: HostProcess): Promise<void> {
    let end: WaitResponse;
    try {
      end = await this.#agent.call(ProcessesService.wait, { containerId: id, execId });
    } catch (error) {
      this.#log.warn({ id, execId, error: errorChain(error) }, "lost a process");
      return; // the pod's failure, which tells every process, is why; or it was removed
    }
    await host.delivered(end.stdoutBytes, end.stderrBytes);
    this.#log.debug({ id, execId, status: end.waitStatus }, "process ended");
    if (execId === "") this.#writeExit(id, end.waitStatus, end.oomKilled);
    else this.#records.get(id)?.processes.delete(execId);
    host.end(end.waitStatus);
    if (execId === "") this.#events.add("exit", id, { status: end.waitStatus });
  }

  #writeExit(id: string, waitStatus: number, oomKilled: boolean, failure?: string): void {
    const record = this.#records.get(id);
    const reason = failure ?? record?.reason;
    if (record === undefined) return;
    record.ended = true;
    if (record.exitFile === "") return;
    const exit = { version: 1, waitStatus, oomKilled, endedAt: new Date().toISOString(), ...(reason === undefined ? {} : { reason }) };
    // The sandbox's working folder is the pod's, where the command line looks; nothing of a path is taken from elsewhere.
    const file = basename(record.exitFile);
    try {
      writeFileSync(`${file}.new`, JSON.stringify(exit), { mode: 0o600 });
      renameSync(`${file}.new`, file);
    } catch (error) {
      this.#log.error({ id, error: errorChain(error) }, "write the exit file");
    }
  }

  async kill({ containerId, execId, signal, all }: KillRequest): Promise<void> {
    await this.#agent.call(ProcessesService.signal, { containerId, execId, signal, all }, this.#callMs);
  }

  async resize({ containerId, execId, rows, columns }: ResizeRequest): Promise<void> {
    await this.#agent.call(ProcessesService.resize, { containerId, execId, rows, columns }, this.#callMs);
  }

  closeStdin(id: string, execId: string): void {
    this.#process(id, execId).closeInput();
  }

  async delete(id: string, force: boolean): Promise<void> {
    try {
      await this.#agent.call(ContainersService.remove, { containerId: id }, this.#callMs);
    } catch (error) {
      if (!force) throw error;
    }
    const record = this.#records.get(id);
    this.#records.delete(id);
    for (const host of record?.processes.values() ?? []) host.abandon();
  }

  async processes(id: string): Promise<ProcessInfo[]> {
    const { processes } = await this.#agent.call(ContainersService.list, { containerId: id }, this.#callMs);
    const record = this.#record(id);
    return processes.map(({ init, execId, ...facts }) => {
      const host = init ? record.processes.get("") : execId === "" ? undefined : record.processes.get(execId);
      return { ...facts, hostPid: host?.proxyPid ?? 0 };
    });
  }

  ids(): string[] {
    return [...this.#records.keys()];
  }

  /** The guest has gone: what it sent is delivered, then every process is lost, with the reason for those who ask. */
  async lose(reason: string): Promise<void> {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    const all = [...this.#records.values()].flatMap((record) => [...record.processes.values()]);
    await Promise.race([Promise.all(all.map(async (host) => await host.outputsEnded())), new Promise((wake) => setTimeout(wake, 5000).unref())]);
    const lost = [...this.#records.values()].filter(({ ended }) => ended !== true);
    for (const { id } of lost) this.#writeExit(id, SIGKILL, false, reason);
    for (const host of all) host.lose();
    for (const { id } of lost) this.#events.add("exit", id, { status: SIGKILL });
  }

  #record(id: string): ContainerRecord {
    if (this.#failure !== undefined) throw new TskataError("unavailable", this.#failure);
    const record = this.#records.get(id);
    if (record === undefined) throw new TskataError("not-found", `container ${id} does not exist in this pod`);
    return record;
  }

  #process(id: string, execId: string): HostProcess {
    const host = this.#record(id).processes.get(execId);
    if (host === undefined) throw new TskataError("not-found", `process ${execId} of container ${id} does not exist`);
    return host;
  }
}
