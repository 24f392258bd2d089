/** The Sandbox service: the pod as a whole. */
import { writeFileSync } from "node:fs";
import { availableParallelism, freemem, loadavg, release, totalmem, uptime } from "node:os";
import { TskataError } from "../../src/base/errors.ts";
import { TSKATA_VERSION } from "../../src/base/version.ts";
import { native } from "../../src/native.ts";
import type {
  CheckResponse,
  ClockRequest,
  ClockResponse,
  CreateSandboxRequest,
  MetricsResponse,
  ReplayChangesRequest,
  SandboxService,
  Span,
} from "../../src/protocols/generated/agent.ts";
import { boottimeNs } from "../clock.ts";
import { CACHED, isMounted, LIVE, mountCached, mountShared } from "../init/mounts.ts";
import { log, setLogLevel } from "../log.ts";
import type { UnaryHandlers } from "./handlers.ts";
import type { Pod } from "./pod.ts";

export class SandboxHandlers implements UnaryHandlers<typeof SandboxService> {
  readonly #pod: Pod;
  readonly #spans: readonly Span[];
  #created = false;

  constructor(pod: Pod, spans: readonly Span[]) {
    this.#pod = pod;
    this.#spans = spans;
  }

  check(): CheckResponse {
    return { version: TSKATA_VERSION, kernel: release(), boottimeNs: boottimeNs(), realtimeNs: native().wallClock(), spans: this.#spans };
  }

  createSandbox(request: CreateSandboxRequest): Record<never, never> {
    if (this.#created) throw new TskataError("wrong-state", "the sandbox is set up already");
    this.#created = true;
    setLogLevel(request.logLevel);
    native().adjustWallClock(request.clockOffsetNs, true);
    if (request.entropy.length > 0) native().addEntropy(request.entropy);
    if (request.hostname !== "") native().sethostname(request.hostname);
    native().setLinkUp("lo");
    for (const [name, value] of request.sysctls) writeFileSync(`/proc/sys/${name.replaceAll(".", "/")}`, value);
    if (request.liveTag !== "") mountShared(request.liveTag, LIVE);
    if (request.cachedTag !== "") mountCached(request.cachedTag, CACHED);
    return {};
  }

  clock({ offsetNs, step }: ClockRequest): ClockResponse {
    if (offsetNs !== 0n) native().adjustWallClock(offsetNs, step);
    return { realtimeNs: native().wallClock() };
  }

  getMetrics(): MetricsResponse {
    return {
      memoryTotal: BigInt(totalmem()),
      memoryAvailable: BigInt(freemem()),
      agentRss: BigInt(process.memoryUsage.rss()),
      load1: loadavg()[0] ?? 0,
      cpus: availableParallelism(),
      containers: this.#pod.size,
      uptimeNs: BigInt(Math.round(uptime() * 1e9)),
    };
  }

  replayChanges({ changes }: ReplayChangesRequest): Record<never, never> {
    const left = native().replayChanges(LIVE, changes);
    if (left > 0) log("debug", "changes of the host's to folders that are no more", { left });
    return {};
  }

  /** Ends everything and powers off; the answer may not get through. */
  async shutdown(): Promise<Record<never, never>> {
    log("info", "shutting down", { containers: this.#pod.size });
    for (const id of this.#pod.ids()) await this.#pod.remove(id).catch((error: unknown) => log("warn", String(error)));
    // What is left to be written goes to the host when it is unmounted.
    for (const folder of [CACHED, LIVE]) if (isMounted(folder)) native().umount(folder, 0);
    setImmediate(() => native().reboot("restart"));
    return {};
  }
}
