/** The pod as the services share it: its containers, its events, where things are. */
import { TskataError } from "../../src/base/errors.ts";
import type { Event } from "../../src/protocols/generated/agent.ts";
import type { Container, ContainerEvents } from "../container/container.ts";
import type { Surroundings } from "../container/process.ts";

/** Kept for a host that is not listening yet. */
const MAX_BACKLOG = 1000;

export class Pod implements ContainerEvents {
  readonly around: Surroundings;
  readonly #containers = new Map<string, Container>();
  /** Ids whose create is under way. */
  readonly #reserved = new Set<string>();
  readonly #listeners = new Set<(event: Event) => void>();
  #backlog: Event[] = [];

  constructor(around: Surroundings) {
    this.around = around;
  }

  /** Runs a create while nobody else can take its id. */
  async add(id: string, create: () => Promise<Container>): Promise<Container> {
    if (!/^[\w+.-]{1,1024}$/.test(id) || id === "." || id === "..") throw new TskataError("invalid", `container id "${id}"`);
    if (this.#containers.has(id) || this.#reserved.has(id)) throw new TskataError("exists", `container ${id} exists in this pod`);
    this.#reserved.add(id);
    try {
      const container = await create();
      this.#containers.set(id, container);
      return container;
    } finally {
      this.#reserved.delete(id);
    }
  }

  container(id: string): Container {
    const found = this.#containers.get(id);
    if (found === undefined) throw new TskataError("not-found", `container ${id} does not exist in this pod`);
    return found;
  }

  async remove(id: string): Promise<void> {
    const container = this.container(id);
    this.#containers.delete(id);
    await container.remove();
  }

  get size(): number {
    return this.#containers.size;
  }

  ids(): string[] {
    return [...this.#containers.keys()];
  }

  // -- events ----------------------------------------------------------------------------------------------------------

  oom(id: string, kills: number): void {
    this.#tell({ oom: { containerId: id, kills: BigInt(kills) }, exit: undefined });
  }

  exit(id: string, execId: string, waitStatus: number): void {
    this.#tell({ exit: { containerId: id, execId, waitStatus }, oom: undefined });
  }

  /** Hears of everything from now on, and of what nobody has heard yet; the answer ends it. */
  listen(listener: (event: Event) => void): () => void {
    this.#listeners.add(listener);
    for (const event of this.#backlog.splice(0)) listener(event);
    return () => this.#listeners.delete(listener);
  }

  #tell(event: Event): void {
    for (const listener of this.#listeners) listener(event);
    if (this.#listeners.size > 0) return;
    this.#backlog.push(event);
    if (this.#backlog.length > MAX_BACKLOG) this.#backlog.shift();
  }
}
