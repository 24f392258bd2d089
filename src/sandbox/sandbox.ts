/** A pod's sandbox: devices, machine, agent, control API; its start read top-down. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { AgentClient } from "../agent-client/agent-client.ts";
import { within } from "../base/deadline.ts";
import { errorChain, TskataError } from "../base/errors.ts";
import { explanation, type FailureError } from "../base/failures.ts";
import { logTail } from "../base/log-tail.ts";
import { CACHED, LIVE } from "../base/shared-tree.ts";
import { machineInWords, type PodConfig } from "../control/pod-config.ts";
import { ControlServer } from "../control/server.ts";
import { type GuestMachine, guestEnd, guestSilence } from "../hypervisor/guest-end.ts";
import { startKvm } from "../hypervisor/kvm/kvm.ts";
import { FS_PATIENCE_US, type Machine, type MachineEnd, type SharedFolder } from "../hypervisor/machine.ts";
import { startQemu } from "../hypervisor/qemu/qemu.ts";
import { native, type VirtioDevice } from "../native.ts";
import { AGENT_PORT, SandboxService, STDIO_PORT } from "../protocols/agent-service.ts";
import { type CheckResponse, ContainersService } from "../protocols/generated/agent.ts";
import { ControlService } from "../protocols/generated/control.ts";
import { now, SpanRecorder } from "../telemetry/spans.ts";
import { Containers } from "./containers.ts";
import { EventLog } from "./events.ts";
import { clockOffset, GuestClock } from "./guest-clock.ts";
import { guestJson } from "./guest-json.ts";
import { Handoffs } from "./handoffs.ts";
import type { Log } from "./log.ts";

/** Any number but 0, 1, 2: one guest has one device. */
const GUEST_CID = 3;
const VSOCK = "vsock.sock";
const CONSOLE = "console.log";
/** What a kernel says before a panic for want of memory is long. */
const PANIC_LINES = 200;
const ENTROPY_BYTES = 64;
const KILL_GRACE_MS = 2000;
const CLOCK_TIMEOUT_MS = 10_000;
/** A dead machine's sockets break before its end is told, by another way. */
const END_TOLD_MS = 500;
/** Of the host's, replayed by one call: the agent does nothing else meanwhile. */
const CHANGES_AT_ONCE = 256;

/** The sockets that tskata-jail has left to this process: of the keeper of the file servers' handles, one for each that there may be. */
function keeperSockets(): number[] {
  const fds = process.env["TSKATA_KEEPER_FDS"];
  delete process.env["TSKATA_KEEPER_FDS"];
  return fds === undefined ? [] : fds.split(" ").map(Number);
}

/** The file servers of the pod's shared tree (src/oci/guest-spec.ts). */
function createFileServers({ fsThreads: threads, hypervisor, writeback }: PodConfig): { live: SharedFolder; cached: SharedFolder | undefined } {
  const patienceUs = FS_PATIENCE_US[hypervisor.driver === "qemu" ? hypervisor.accelerator : "kvm"];
  const [keeperFd, cachedKeeperFd] = keeperSockets();
  const share = writeback ? 0.5 : 1;
  const serve = (folder: string, tag: string, keeper: number | undefined, writesBack: boolean): SharedFolder => {
    const root = `shared/${folder}`;
    mkdirSync(root, { recursive: true, mode: 0o755 });
    return { tag, device: native().createFs({ root, tag, threads, patienceUs, keeperFd: keeper, writeback: writesBack, share }) };
  };
  const live = serve(LIVE, "tskata", keeperFd, false);
  if (writeback) return { live, cached: serve(CACHED, "tskata-cached", cachedKeeperFd, true) };
  if (cachedKeeperFd !== undefined) native().closeFd(cachedKeeperFd);
  return { live, cached: undefined };
}

export class Sandbox {
  readonly #config: PodConfig;
  readonly #log: Log;
  readonly #spans = new SpanRecorder("sandbox");
  readonly #events = new EventLog();
  readonly #handoffs: Handoffs;
  readonly #vsock: VirtioDevice;
  readonly #live: SharedFolder;
  readonly #cached: SharedFolder | undefined;
  readonly #agent: AgentClient;
  readonly #containers: Containers;
  readonly #clock: GuestClock;
  #machine: Machine | undefined;
  #control: ControlServer | undefined;
  #guest: CheckResponse | undefined;
  /** Why the machine has ended, not asked for. */
  readonly #loss = Promise.withResolvers<string>();
  #stopping: Promise<void> | undefined;
  #confined = false;

  constructor(config: PodConfig, log: Log) {
    this.#config = config;
    this.#log = log;
    this.#spans.writeTo("spans.jsonl");
    this.#handoffs = new Handoffs("handoff.sock");
    this.#vsock = native().createVsock({ guestCid: GUEST_CID, path: VSOCK, guestPorts: [AGENT_PORT, STDIO_PORT] });
    const { live, cached } = createFileServers(config);
    this.#live = live;
    this.#cached = cached;
    this.#agent = new AgentClient(`${VSOCK}_g${AGENT_PORT}`);
    this.#clock = new GuestClock({
      ask: async (request) => await this.#agent.call(SandboxService.clock, request, CLOCK_TIMEOUT_MS),
      now: () => native().wallClock(),
      watch: (onSet) => native().watchWallClock(onSet),
      onError: (error) => this.#log.debug({ error: errorChain(error) }, "the guest's clock"),
    });
    this.#containers = new Containers({
      agent: this.#agent,
      vsock: this.#vsock,
      handoffs: this.#handoffs,
      events: this.#events,
      spans: this.#spans,
      log,
      callMs: config.callTimeoutMs,
    });
  }

  async start(): Promise<void> {
    const endAll = this.#spans.begin("virtual machine");
    this.#control = await ControlServer.listen("control.sock", ControlService, this.#handlers(), (error) => this.#explain(error));
    const listening = listenForAgent(`${VSOCK}_${AGENT_PORT}`);
    const bootNs = now();
    const machine = await this.#spans.measure("start the hypervisor", () => this.#startMachine());
    await this.#spans.measure("close the jail", () => this.#closeJail());
    const ends = this.#endsOfStart(machine);
    await this.#spans.measure("boot until the agent listens", async () => await Promise.race([listening.connected, ends]));
    listening.close();
    const { startTimeoutMs } = this.#config;
    const asked = native().wallClock();
    this.#guest = await this.#spans.measure(
      "agent answers",
      async () => await Promise.race([this.#agent.call(SandboxService.check, {}, startTimeoutMs), ends]),
    );
    const offsetNs = clockOffset(asked, this.#guest.realtimeNs, native().wallClock());
    this.#addGuestSpans(this.#guest, bootNs);
    this.#agent.events(
      (event) => {
        // Only of containers that are: what is kept of a guest's words stays bounded.
        if (event.oom !== undefined && this.#containers.ids().includes(event.oom.containerId)) this.#events.add("oom", event.oom.containerId, {});
      },
      () => this.#log.debug("the agent's event stream has ended"),
    );
    await this.#spans.measure("create sandbox in the guest", async () => await Promise.race([this.#createSandbox(offsetNs), ends]));
    endAll();
    void this.#clock.keep();
    void this.#relayChanges();
    this.#log.debug({ exits: machine.exits() }, "exits of the start");
    this.#log.info({ kernel: this.#guest.kernel, agent: this.#guest.version }, "ready");
  }

  #startMachine(): Machine {
    const { hypervisor, jail, seccomp, kernel, image, kernelParameters, vcpus, memoryMib } = this.#config;
    const shared = this.#cached === undefined ? [this.#live] : [this.#live, this.#cached];
    const options = { kernel, image, kernelParameters, vcpus, memoryMib, vsock: this.#vsock, shared, consoleLog: CONSOLE };
    const machine =
      hypervisor.driver === "kvm"
        ? startKvm(hypervisor.device, options)
        : startQemu({ program: hypervisor.qemu, accelerator: hypervisor.accelerator, jail, seccomp, log: "qemu.log" }, options);
    this.#machine = machine;
    void machine.ended.then((end) => this.#onMachineEnd(end));
    return machine;
  }

  /** Before the guest's first instruction: the machine waits for its devices, whose threads wait for this. */
  #closeJail(): void {
    const { seccomp } = this.#config;
    if (seccomp !== "enforce") this.#log.warn({ seccomp }, "system calls of the jail are not limited: sandbox.seccomp in the configuration");
    native().closeJail(seccomp);
    this.#confined = true;
  }

  /** Rejects when the start can't succeed any more: the machine has ended, or there is no time left. */
  #endsOfStart(machine: Machine): Promise<never> {
    const { startTimeoutMs } = this.#config;
    const dead = machine.ended.then((end): never => {
      throw this.#guestEnd(end);
    });
    const late = (): Error => guestSilence(startTimeoutMs / 1000, logTail(CONSOLE, PANIC_LINES), this.#guestMachine());
    const ends = within(startTimeoutMs, dead, late);
    ends.catch(() => {}); // the start may have ended before
    return ends;
  }

  #guestEnd(end: MachineEnd): FailureError {
    return guestEnd(end, logTail(CONSOLE, PANIC_LINES), this.#guestMachine());
  }

  #guestMachine(): GuestMachine {
    return { description: machineInWords(this.#config), memoryMib: this.#config.memoryMib };
  }

  async #createSandbox(clockOffsetNs: bigint): Promise<void> {
    await this.#agent.call(
      SandboxService.createSandbox,
      {
        hostname: this.#config.hostname,
        clockOffsetNs,
        entropy: randomBytes(ENTROPY_BYTES),
        liveTag: this.#live.tag,
        cachedTag: this.#cached?.tag ?? "",
        logLevel: this.#config.guestLogLevel,
      },
      this.#config.startTimeoutMs,
    );
  }

  /** What the host changes in volumes is replayed in the guest, one batch after the other, for as long as the guest answers. */
  async #relayChanges(): Promise<void> {
    try {
      for (;;) {
        const changes = await native().hostChanges(this.#live.device, CHANGES_AT_ONCE);
        await this.#agent.call(SandboxService.replayChanges, { changes });
      }
    } catch (error) {
      if (this.#stopping === undefined) this.#log.warn({ error: errorChain(error) }, "the host's changes to volumes raise no events in the guest any more");
    }
  }

  /** Guest spans count from the kernel's start; the answer's own clock tells where that is on the host's. */
  #addGuestSpans({ spans, boottimeNs }: CheckResponse, bootNs: bigint): void {
    const offset = now() - boottimeNs;
    const place = (ns: bigint): bigint => (offset + ns < bootNs ? bootNs : offset + ns);
    this.#spans.add({ name: "hypervisor start", process: "sandbox", startNs: bootNs, endNs: place(0n) });
    for (const { name, startNs, endNs } of spans.slice(0, 32)) {
      this.#spans.add({ name: name.slice(0, 80), process: "guest", startNs: place(startNs), endNs: place(endNs) });
    }
  }

  #handlers(): Parameters<typeof ControlServer.listen>[2] {
    const containers = this.#containers;
    const spans = this.#spans;
    return {
      create: async (request) => await spans.measure("serve create", () => containers.create(request)),
      start: async ({ containerId }) => {
        await spans.measure("serve start", () => containers.start(containerId));
        return {};
      },
      exec: async (request) => await spans.measure("serve exec", () => containers.exec(request)),
      kill: async (request) => {
        await spans.measure("serve kill", () => containers.kill(request));
        return {};
      },
      delete: async ({ containerId, force }) => {
        await spans.measure("serve delete", () => containers.delete(containerId, force));
        return {};
      },
      resize: async (request) => {
        await containers.resize(request);
        return {};
      },
      closeStdin: async ({ containerId, execId }) => {
        containers.closeStdin(containerId, execId);
        return {};
      },
      update: async (request) => await this.#agent.call(ContainersService.update, request, this.#config.callTimeoutMs),
      pause: async (request) => await this.#agent.call(ContainersService.pause, request, this.#config.callTimeoutMs),
      resume: async (request) => await this.#agent.call(ContainersService.resume, request, this.#config.callTimeoutMs),
      stats: async (request) => {
        const { stats } = await this.#agent.call(ContainersService.stats, request, this.#config.callTimeoutMs);
        return { json: guestJson(stats, "statistics") };
      },
      processes: async ({ containerId }) => ({ processes: await containers.processes(containerId) }),
      events: async ({ containerId, sequence }, signal) => ({ events: await this.#events.after(sequence, containerId, signal) }),
      info: async () => ({ json: Buffer.from(JSON.stringify(await this.#info())) }),
      shutdown: async ({ timeoutMs }) => {
        // Answered before the process ends.
        setImmediate(() => void this.shutdown(timeoutMs));
        return {};
      },
    };
  }

  async #info(): Promise<object> {
    const metrics = await this.#agent.call(SandboxService.getMetrics, {}, this.#config.callTimeoutMs);
    const numbers = Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, Number(value)]));
    return {
      driver: this.#config.hypervisor,
      vcpus: this.#config.vcpus,
      memoryMib: this.#config.memoryMib,
      kernel: this.#guest?.kernel,
      agent: this.#guest?.version,
      // As the jail's own pid namespace counts them.
      pids: { sandbox: process.pid, hypervisor: this.#machine?.pid },
      guest: numbers,
      containers: this.#containers.ids(),
    };
  }

  /** Not asked for: whoever waits for a process of the pod learns why. */
  async #onMachineEnd(end: MachineEnd): Promise<void> {
    native().guestHasGone(this.#vsock);
    this.#clock.close();
    if (this.#stopping !== undefined) return;
    const { failure, message, machine } = this.#guestEnd(end);
    const reason = `the virtual machine died: ${message}\n${explanation(failure, machine, [["guest console", logTail(CONSOLE)]])}`;
    this.#log.error({ reason }, "the virtual machine died");
    try {
      writeFileSync("failure", reason, { mode: 0o600 });
    } catch (error) {
      this.#log.error({ error: errorChain(error) }, "write down why the virtual machine died");
    }
    this.#loss.resolve(reason);
    await this.#containers.lose(reason);
  }

  /** What broke because the machine has ended is told as that. */
  async #explain(error: unknown): Promise<unknown> {
    if (error instanceof TskataError && error.code !== "unavailable") return error;
    const reason = await Promise.race([this.#loss.promise, after(END_TOLD_MS)]);
    return reason === undefined ? error : new TskataError("unavailable", reason);
  }

  /** Stops the guest in order if it does so in time, then the process. */
  shutdown(timeoutMs: number): Promise<void> {
    this.#stopping ??= this.#stop(timeoutMs);
    return this.#stopping;
  }

  async #stop(timeoutMs: number): Promise<void> {
    const end = this.#spans.begin("stop the virtual machine");
    const machine = this.#machine;
    // Its threads wait for a jail that does not close any more: nothing but this ends them.
    if (machine !== undefined && !this.#confined) process.kill(process.pid, "SIGKILL");
    if (machine !== undefined && timeoutMs > 0) {
      const asked = this.#agent.call(SandboxService.shutdown, {}, timeoutMs).catch(() => {});
      await Promise.race([machine.ended, asked.then(() => after(KILL_GRACE_MS)), after(timeoutMs)]);
    }
    machine?.kill();
    await machine?.ended;
    end();
    this.#control?.close();
    this.#handoffs.close();
    process.exit(0);
  }
}

async function after(milliseconds: number): Promise<void> {
  await new Promise((wake) => setTimeout(wake, milliseconds).unref());
}

/**
 * The agent connects to the host once when it listens: no polling. Nobody is told when that fails for want of descriptors here, so it is
 * looked for: `connected` rejects when there have been too few twice in a row.
 */
function listenForAgent(path: string): { connected: Promise<void>; close: () => void } {
  rmSync(path, { force: true });
  const server = createServer((socket) => socket.destroy());
  server.listen(path);
  const { promise: starved, reject } = Promise.withResolvers<never>();
  let before: unknown;
  const timer = setInterval(() => {
    const shortage = descriptorShortage();
    if (shortage !== undefined && before !== undefined) reject(new TskataError("unavailable", "wait for the agent", { cause: shortage }));
    before = shortage;
  }, 1000);
  const connected = Promise.race([once(server, "connection").then(() => {}), starved]);
  connected.catch(() => {}); // the start may have ended before
  const close = (): void => {
    clearInterval(timer);
    server.close();
  };
  return { connected, close };
}

/** Whether there are the two descriptors that a connection of the guest's to this process takes. */
function descriptorShortage(): unknown {
  const open: number[] = [];
  try {
    for (let count = 0; count < 2; count++) open.push(openSync(".", "r"));
    return undefined;
  } catch (error) {
    return error;
  } finally {
    for (const fd of open) closeSync(fd);
  }
}
