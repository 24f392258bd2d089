/** The Processes service. */
import { parseProcess } from "../../src/oci/spec.ts";
import type {
  Empty,
  ExecRequest,
  ProcessesService,
  ProcessRequest,
  ProcessResponse,
  ResizeRequest,
  SignalRequest,
  WaitResponse,
} from "../../src/protocols/generated/agent.ts";
import { writeBack } from "../init/mounts.ts";
import { parseBytes } from "./containers.ts";
import type { UnaryHandlers } from "./handlers.ts";
import type { Pod } from "./pod.ts";

export class ProcessesHandlers implements UnaryHandlers<typeof ProcessesService> {
  readonly #pod: Pod;

  constructor(pod: Pod) {
    this.#pod = pod;
  }

  async exec({ containerId, execId, process, stdio, subCgroup }: ExecRequest): Promise<ProcessResponse> {
    const parsed = parseProcess(parseBytes(process), "process");
    return { pid: (await this.#pod.container(containerId).exec(execId, parsed, stdio, subCgroup)).pid };
  }

  signal({ containerId, execId, signal, all }: SignalRequest): Empty {
    const container = this.#pod.container(containerId);
    if (all) container.signalAll(signal);
    else container.process(execId).signal(signal);
    return {};
  }

  async wait({ containerId, execId }: ProcessRequest): Promise<WaitResponse> {
    const container = this.#pod.container(containerId);
    const { waitStatus, stdout, stderr } = await container.process(execId).ended;
    // A process's end closes its files, which writes them back; what nobody closes is what it passed on: a socket's, a loop device's.
    if (execId === "") writeBack();
    const oomKilled = execId === "" && container.endedByOom(waitStatus);
    if (execId !== "") container.forget(execId);
    return { waitStatus, stdoutBytes: stdout, stderrBytes: stderr, oomKilled };
  }

  resize({ containerId, execId, rows, columns }: ResizeRequest): Empty {
    this.#pod.container(containerId).process(execId).resize(rows, columns);
    return {};
  }

  closeStdin({ containerId, execId }: ProcessRequest): Empty {
    this.#pod.container(containerId).process(execId).closeStdin();
    return {};
  }
}
