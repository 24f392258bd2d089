/** Calls to a pod's sandbox process, in the command line's terms. */
import { join } from "node:path";
import * as z from "zod/mini";
import { podPaths } from "../base/paths.ts";
import { pidFromInside } from "../base/process.ts";
import { ControlClient } from "../control/client.ts";
import { handOver as sendDescriptors } from "../control/handoff.ts";
import type { StateFile } from "../oci/state-file.ts";
import {
  type ContainerRequest,
  ControlService,
  type CreateRequest,
  type CreateResponse,
  type DeleteRequest,
  type EventsRequest,
  type EventsResponse,
  type ExecRequest,
  type Handoff,
  type KillRequest,
  type ProcessesResponse,
  type ResizeRequest,
  type ShutdownRequest,
  type UpdateRequest,
} from "../protocols/generated/control.ts";
import type { StdioPlan } from "./stdio.ts";

const infoSchema = z.looseObject({ pids: z.object({ sandbox: z.int(), hypervisor: z.optional(z.int()) }) });

export class PodClient implements Disposable {
  readonly #client: ControlClient;
  /** For requests that have no time of their own. */
  readonly #timeoutMs: number;

  constructor(client: ControlClient, timeoutMs: number) {
    this.#client = client;
    this.#timeoutMs = timeoutMs;
  }

  async create(request: Partial<CreateRequest>): Promise<CreateResponse> {
    return await this.#client.call(ControlService.create, request, this.#timeoutMs);
  }

  async start(request: ContainerRequest): Promise<void> {
    await this.#client.call(ControlService.start, request, this.#timeoutMs);
  }

  async exec(request: Partial<ExecRequest>): Promise<CreateResponse> {
    return await this.#client.call(ControlService.exec, request, this.#timeoutMs);
  }

  async kill(request: Partial<KillRequest>, timeoutMs = this.#timeoutMs): Promise<void> {
    await this.#client.call(ControlService.kill, request, timeoutMs);
  }

  async delete(request: Partial<DeleteRequest>, timeoutMs = this.#timeoutMs): Promise<void> {
    await this.#client.call(ControlService.delete, request, timeoutMs);
  }

  async update(request: UpdateRequest): Promise<void> {
    await this.#client.call(ControlService.update, request, this.#timeoutMs);
  }

  async pause(request: ContainerRequest): Promise<void> {
    await this.#client.call(ControlService.pause, request, this.#timeoutMs);
  }

  async resume(request: ContainerRequest): Promise<void> {
    await this.#client.call(ControlService.resume, request, this.#timeoutMs);
  }

  /** JSON text of the "data" object of `events --stats`. */
  async stats(request: ContainerRequest): Promise<string> {
    return Buffer.from((await this.#client.call(ControlService.stats, request, this.#timeoutMs)).json).toString("utf8");
  }

  async processes(request: ContainerRequest): Promise<ProcessesResponse> {
    return await this.#client.call(ControlService.processes, request, this.#timeoutMs);
  }

  async events(request: EventsRequest): Promise<EventsResponse> {
    return await this.#client.call(ControlService.events, request);
  }

  async resize(request: ResizeRequest): Promise<void> {
    await this.#client.call(ControlService.resize, request, this.#timeoutMs);
  }

  /** What the sandbox process tells of itself; pids are the host's. */
  async info(sandboxPid: number): Promise<Record<string, unknown>> {
    const { pids, ...rest } = infoSchema.parse(
      JSON.parse(Buffer.from((await this.#client.call(ControlService.info, {}, this.#timeoutMs)).json).toString("utf8")),
    );
    return { ...rest, pids: { sandbox: sandboxPid, hypervisor: pids.hypervisor && pidFromInside(sandboxPid, pids.hypervisor) } };
  }

  async shutdown(request: ShutdownRequest, timeoutMs = this.#timeoutMs): Promise<void> {
    await this.#client.call(ControlService.shutdown, request, timeoutMs);
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}

/** For a pod whose state does not tell: the option's default. */
const CALL_MS = 120_000;
/** The sandbox's own limit for the agent comes first: it knows more. */
const GRACE_MS = 5000;

export async function connectPod({ folder, callTimeoutMs = CALL_MS }: Pick<StateFile["pod"], "folder" | "callTimeoutMs">): Promise<PodClient> {
  return new PodClient(ControlClient.connect(podPaths(folder).control), callTimeoutMs + GRACE_MS);
}

export function handOver(podFolder: string, stdio: Pick<StdioPlan, "stdin" | "stdout" | "stderr">, proxy: number): Handoff {
  return sendDescriptors(join(podFolder, "handoff.sock"), { ...stdio, proxy });
}
