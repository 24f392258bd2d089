/** The kvm driver: our own machine on /dev/kvm, in this process. */
import { native } from "../../native.ts";
import { buildMachine } from "../../vmm/builder.ts";
import { describeEnding, endedByGuest } from "../../vmm/endings.ts";
import { kernelCommandLine, type Machine, type MachineEnd, type MachineOptions } from "../machine.ts";

/** Slots that may be given a device after boot. */
const PLACEHOLDERS = 4;

export function startKvm(kvm: string, options: MachineOptions): Machine {
  const { machine, attach } = buildMachine({
    kvm,
    kernel: options.kernel,
    image: options.image,
    vcpus: options.vcpus,
    memoryMib: options.memoryMib,
    devices: [options.vsock, ...options.shared.map(({ device }) => device), native().createRng(), native().createBalloon()],
    placeholders: PLACEHOLDERS,
    console: { log: options.consoleLog },
    commandLine: (own) => kernelCommandLine("/dev/pmem0", ["rootflags=dax=always", ...own], options.kernelParameters),
  });
  let killed: () => void = () => {};
  const ended = new Promise<MachineEnd>((done) => {
    killed = () => done({ by: "hypervisor", what: "it was stopped" });
    void machine.ended.then((ending) => done({ by: endedByGuest(ending) ? "guest" : "hypervisor", what: describeEnding(ending) }));
  }).finally(() => void machine.close());
  machine.start();
  return { pid: process.pid, ended, attach, kill: () => killed(), exits: () => machine.exits() };
}
