/** A container in the guest: its cgroup, its init, what was exec'ed in it; from create to remove. */
import { TskataError } from "../../src/base/errors.ts";
import { native } from "../../src/native.ts";
import type { Process, Resources, Spec } from "../../src/oci/spec.ts";
import type { Stdio } from "../../src/protocols/generated/agent.ts";
import { writeBack } from "../init/mounts.ts";
import { Cgroup } from "./cgroup.ts";
import { containerPlan, execPlan } from "./container-plan.ts";
import { GuestProcess, type Surroundings } from "./process.ts";
import { sourcesKnown } from "./sources.ts";

type State = "created" | "running" | "paused" | "stopped";

const SIGKILL = 9;

export interface CreateOptions {
  readonly id: string;
  readonly spec: Spec;
  readonly stdio: Stdio | undefined;
  readonly sharedPids: ReadonlyMap<string, number>;
  readonly noPivot: boolean;
  readonly noNewKeyring: boolean;
  /** The bundle's folder on the host, for hooks. */
  readonly bundle: string;
}

export interface ContainerEvents {
  oom(id: string, kills: number): void;
  exit(id: string, execId: string, waitStatus: number): void;
}

export class Container {
  readonly id: string;
  readonly cgroup: Cgroup;
  readonly init: GuestProcess;
  readonly #spec: Spec;
  readonly #around: Surroundings;
  readonly #events: ContainerEvents;
  readonly #processes = new Map<string, GuestProcess>();
  readonly #stopWatching: () => void;
  #state: State = "created";
  #pausedFrom: State = "created";
  #oomKills = 0;

  private constructor(options: CreateOptions, around: Surroundings, events: ContainerEvents, cgroup: Cgroup, init: GuestProcess) {
    this.id = options.id;
    this.cgroup = cgroup;
    this.init = init;
    this.#spec = options.spec;
    this.#around = around;
    this.#events = events;
    this.#stopWatching = cgroup.watchMemoryEvents(() => this.#checkOom());
    void init.exited.then((status) => this.#onInitExit(status));
  }

  static async create(options: CreateOptions, around: Surroundings, events: ContainerEvents): Promise<Container> {
    const cgroup = new Cgroup(options.id);
    cgroup.create(options.spec.linux?.resources);
    try {
      await sourcesKnown(options.spec.mounts ?? []);
      const plan = containerPlan({
        id: options.id,
        spec: options.spec,
        cgroup: cgroup.folder,
        sharedPids: options.sharedPids,
        noPivot: options.noPivot,
        newKeyring: !options.noNewKeyring,
        bundle: options.bundle,
      });
      return new Container(options, around, events, cgroup, await GuestProcess.launch(around, plan, options.stdio));
    } catch (error) {
      cgroup.kill();
      await cgroup.remove();
      throw error;
    }
  }

  async start(): Promise<void> {
    if (this.#state !== "created") throw new TskataError("wrong-state", `cannot start a container in the ${this.#state} state`);
    await this.init.release();
    if (this.#state === "created") this.#state = "running";
  }

  async exec(execId: string, process: Process, stdio: Stdio | undefined, subCgroup: string): Promise<GuestProcess> {
    if (this.#state === "stopped") throw new TskataError("wrong-state", "cannot exec in a stopped container");
    if (this.#state === "paused") throw new TskataError("wrong-state", "cannot exec in a paused container");
    if (execId === "" || this.#processes.has(execId)) throw new TskataError("exists", `process ${execId} of container ${this.id} exists already`);
    const plan = execPlan({ spec: this.#spec, process, cgroup: this.cgroup.folder, subCgroup, init: this.init.pid });
    const launched = await GuestProcess.launch(this.#around, plan, stdio, true);
    this.#processes.set(execId, launched);
    void launched.exited.then((status) => this.#events.exit(this.id, execId, status));
    return launched;
  }

  /** `execId` "" is the init. */
  process(execId: string): GuestProcess {
    const found = execId === "" ? this.init : this.#processes.get(execId);
    if (found === undefined) throw new TskataError("not-found", `process ${execId} of container ${this.id} does not exist`);
    return found;
  }

  /** Ends the record of an exec'ed process whose end has been told. */
  forget(execId: string): void {
    this.#processes.delete(execId);
  }

  execIdOf(pid: number): string {
    for (const [execId, process] of this.#processes) if (process.pid === pid) return execId;
    return "";
  }

  signalAll(signal: number): void {
    if (signal === SIGKILL) {
      this.cgroup.kill();
      return;
    }
    for (const pid of this.cgroup.processes()) {
      try {
        native().kill(pid, signal);
      } catch {
        // It has just ended.
      }
    }
  }

  update(resources: Resources): void {
    this.cgroup.update(resources);
  }

  async pause(): Promise<void> {
    if (this.#state !== "running" && this.#state !== "created") throw new TskataError("wrong-state", "container not running");
    await this.cgroup.freeze(true);
    writeBack(); // who pauses a container looks at its files
    this.#pausedFrom = this.#state;
    this.#state = "paused";
  }

  async resume(): Promise<void> {
    if (this.#state !== "paused") throw new TskataError("wrong-state", "container not paused");
    await this.cgroup.freeze(false);
    this.#state = this.#pausedFrom;
  }

  /** Kills what is left and gives everything back. */
  async remove(): Promise<void> {
    this.cgroup.kill();
    await this.init.exited;
    await Promise.all([...this.#processes.values()].map(async (process) => await process.exited));
    this.#stopWatching();
    for (const process of [this.init, ...this.#processes.values()]) process.closeStreams();
    writeBack(); // its trees are taken from the shared tree next
    await this.cgroup.remove();
  }

  /** Whether its memory limit ended it: the kernel has killed in it, and its init was killed. */
  endedByOom(waitStatus: number): boolean {
    this.#checkOom();
    return this.#oomKills > 0 && (waitStatus & 0x7f) === SIGKILL;
  }

  #checkOom(): void {
    const kills = this.cgroup.oomKills();
    if (kills <= this.#oomKills) return;
    this.#oomKills = kills;
    this.#events.oom(this.id, kills);
  }

  #onInitExit(status: number): void {
    this.#checkOom();
    this.#state = "stopped";
    this.#events.exit(this.id, "", status);
  }
}
