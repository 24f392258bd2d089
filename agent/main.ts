/** The agent: PID 1 of a pod's virtual machine. Read top-down, this is the guest's start. */
import { join } from "node:path";
import { native } from "../src/native.ts";
import { AGENT_PORT, STDIO_PORT } from "../src/protocols/agent-service.ts";
import type { Span } from "../src/protocols/generated/agent.ts";
import { boottimeNs } from "./clock.ts";
import { prepareCgroups } from "./container/cgroup.ts";
import { mountEarly } from "./init/mounts.ts";
import { Reaper } from "./init/reaper.ts";
import { makeRoomForPipes } from "./io/stdio.ts";
import { Streams } from "./io/streams.ts";
import { log } from "./log.ts";
import { Pod } from "./server/pod.ts";
import { SandboxHandlers } from "./server/sandbox.ts";
import { serve } from "./server/server.ts";

/** Host to guest, packets have 4 KiB: with less on the way the guest's reader is done with them before more have come. */
const STREAM_BYTES = 1024 * 1024;

const spans: Span[] = [];

function measured<T>(name: string, work: () => T): T {
  const startNs = boottimeNs();
  const result = work();
  spans.push({ name, startNs, endNs: boottimeNs() });
  return result;
}

/** From the kernel's start to node's, and from there to this line. */
function spansBefore(entered: bigint): Span[] {
  const nodeStart = BigInt(Math.round(performance.timeOrigin * 1e6)) - (BigInt(Date.now()) * 1_000_000n - entered);
  const start = nodeStart > 0n && nodeStart < entered ? nodeStart : entered;
  return [
    { name: "guest kernel", startNs: 0n, endNs: start },
    { name: "node and agent bundle", startNs: start, endNs: entered },
  ];
}

function main(): void {
  spans.push(...spansBefore(boottimeNs()));
  measured("mounts", mountEarly);
  measured("cgroups", prepareCgroups);
  makeRoomForPipes();
  const reaper = new Reaper();
  const streams = new Streams();
  reaper.start();
  const pod = new Pod({ launcher: join(import.meta.dirname, "tskata-launcher"), reaper, streams });
  measured("listen", () => {
    native().listenTagged({ vsockPort: STDIO_PORT, receiveBytes: STREAM_BYTES }, (fd, id) => streams.arrive(fd, id));
    serve(pod, new SandboxHandlers(pod, spans), { vsockPort: AGENT_PORT });
  });
  tellHost();
  log("info", "ready", { uptimeMs: Number(boottimeNs() / 1_000_000n) });
}

/** The host waits for this connection instead of trying again and again whether the agent listens. */
function tellHost(): void {
  try {
    native().closeFd(native().connectVsockHost(AGENT_PORT));
  } catch (error) {
    log("warn", "the host does not listen for the agent", { error: String(error) });
  }
}

// A fault in one call must not end the pod: the kernel would panic without its PID 1.
process.on("uncaughtException", (error) => log("error", "uncaught exception", { error: error.stack ?? String(error) }));
process.on("unhandledRejection", (reason) => log("error", "unhandled rejection", { error: reason instanceof Error ? reason.stack : String(reason) }));
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE"] as const) process.on(signal, () => {});
main();
