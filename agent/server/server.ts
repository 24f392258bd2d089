/** The gRPC server: its services, and connections from vsock injected into it. */
import { Socket } from "node:net";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { native } from "../../src/native.ts";
import { ContainersService, ProcessesService, SandboxService, serviceDefinition } from "../../src/protocols/agent-service.ts";
import type { Event } from "../../src/protocols/generated/agent.ts";
import { ContainersHandlers } from "./containers.ts";
import { streaming, unary } from "./handlers.ts";
import type { Pod } from "./pod.ts";
import { ProcessesHandlers } from "./processes.ts";
import type { SandboxHandlers } from "./sandbox.ts";

export type Address = Parameters<ReturnType<typeof native>["listenStream"]>[0];

/** Serves the pod at an address of the guest until the returned function is called. */
export function serve(pod: Pod, sandbox: SandboxHandlers, address: Address): () => void {
  const server = new Server();
  const containers = new ContainersHandlers(pod);
  const processes = new ProcessesHandlers(pod);
  server.addService(serviceDefinition(SandboxService), {
    check: unary(() => sandbox.check()),
    createSandbox: unary(sandbox.createSandbox.bind(sandbox)),
    clock: unary(sandbox.clock.bind(sandbox)),
    getMetrics: unary(() => sandbox.getMetrics()),
    events: streaming((_request: object, send: (event: Event) => void) => pod.listen(send)),
    replayChanges: unary(sandbox.replayChanges.bind(sandbox)),
    shutdown: unary(() => sandbox.shutdown()),
  });
  server.addService(serviceDefinition(ContainersService), {
    create: unary(containers.create.bind(containers)),
    start: unary(containers.start.bind(containers)),
    remove: unary(containers.remove.bind(containers)),
    update: unary(containers.update.bind(containers)),
    stats: unary(containers.stats.bind(containers)),
    pause: unary(containers.pause.bind(containers)),
    resume: unary(containers.resume.bind(containers)),
    list: unary(containers.list.bind(containers)),
  });
  server.addService(serviceDefinition(ProcessesService), {
    exec: unary(processes.exec.bind(processes)),
    signal: unary(processes.signal.bind(processes)),
    wait: unary(processes.wait.bind(processes)),
    resize: unary(processes.resize.bind(processes)),
    closeStdin: unary(processes.closeStdin.bind(processes)),
  });
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = native().listenStream(address, (fd) => injector.injectConnection(new Socket({ fd: native().bridge(fd) })));
  return () => {
    listener.close();
    server.forceShutdown();
  };
}
