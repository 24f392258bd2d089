/** The Containers service. */
import { TskataError } from "../../src/base/errors.ts";
import { parseResources, parseSpec } from "../../src/oci/spec.ts";
import type {
  ContainerRequest,
  ContainersService,
  CreateContainerRequest,
  Empty,
  ListResponse,
  ProcessResponse,
  StatsResponse,
  UpdateRequest,
} from "../../src/protocols/generated/agent.ts";
import { Container } from "../container/container.ts";
import { listProcesses } from "../container/list.ts";
import { containerStats } from "../container/stats.ts";
import type { UnaryHandlers } from "./handlers.ts";
import type { Pod } from "./pod.ts";

export class ContainersHandlers implements UnaryHandlers<typeof ContainersService> {
  readonly #pod: Pod;

  constructor(pod: Pod) {
    this.#pod = pod;
  }

  async create(request: CreateContainerRequest): Promise<ProcessResponse> {
    const { containerId: id, stdio, noPivot, noNewKeyring, bundle } = request;
    const spec = parseSpec(parseBytes(request.spec), "the container's spec");
    const sharedPids = new Map([...request.sharedNamespaces].map(([type, owner]) => [type, this.#pod.container(owner).init.pid]));
    const options = { id, spec, stdio, sharedPids, noPivot, noNewKeyring, bundle };
    const create = async (): Promise<Container> => await Container.create(options, this.#pod.around, this.#pod);
    return { pid: (await this.#pod.add(id, create)).init.pid };
  }

  async start({ containerId }: ContainerRequest): Promise<Empty> {
    await this.#pod.container(containerId).start();
    return {};
  }

  async remove({ containerId }: ContainerRequest): Promise<Empty> {
    await this.#pod.remove(containerId);
    return {};
  }

  update({ containerId, resources }: UpdateRequest): Empty {
    this.#pod.container(containerId).update(parseResources(parseBytes(resources), "resources"));
    return {};
  }

  stats({ containerId }: ContainerRequest): StatsResponse {
    return { stats: Buffer.from(JSON.stringify(containerStats(this.#pod.container(containerId).cgroup))) };
  }

  async pause({ containerId }: ContainerRequest): Promise<Empty> {
    await this.#pod.container(containerId).pause();
    return {};
  }

  async resume({ containerId }: ContainerRequest): Promise<Empty> {
    await this.#pod.container(containerId).resume();
    return {};
  }

  list({ containerId }: ContainerRequest): ListResponse {
    return { processes: listProcesses(this.#pod.container(containerId)) };
  }
}

export function parseBytes(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (error) {
    throw new TskataError("invalid", "the request holds no JSON", { cause: error });
  }
}
