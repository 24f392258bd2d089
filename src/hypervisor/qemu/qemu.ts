/** The qemu driver: QEMU as a child process, our devices attached by vhost-user. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import { TskataError } from "../../base/errors.ts";
import { native, type VirtioDevice } from "../../native.ts";
import { GUEST_RESTARTED } from "../../vmm/endings.ts";
import type { Machine, MachineEnd, MachineOptions, SharedFolder } from "../machine.ts";
import { qemuArguments } from "./command-line.ts";

export interface QemuDriver {
  readonly program: string;
  readonly accelerator: "kvm" | "tcg";
  /** Program that confines the child. It dies with this process, which is number 1 of their pid namespace. */
  readonly jail: string;
  readonly seccomp: "enforce" | "log" | "off";
  /** What QEMU says is appended here. */
  readonly log: string;
}

const VSOCK_SOCKET = "vsock.vhost";
/** How long QEMU may take to end once it has let go of a device. */
const LAST_STEPS_MS = 5000;
const socketOf = ({ tag }: SharedFolder): string => `${tag}.vhost`;

/** -no-reboot: a guest that restarts, powers off or has a triple fault makes QEMU exit with 0. */
function qemuEnd(code: number | null, signal: NodeJS.Signals | null): MachineEnd {
  if (signal !== null) return { by: "hypervisor", what: `qemu was killed by ${signal}` };
  return code === 0 ? { by: "guest", what: GUEST_RESTARTED } : { by: "hypervisor", what: `qemu exited with ${code}` };
}

export function startQemu(driver: QemuDriver, options: MachineOptions): Machine {
  const sockets = { vsock: VSOCK_SOCKET, shared: options.shared.map(socketOf) };
  const backends = [
    { name: "vsock", server: native().serveVhostUser(options.vsock, sockets.vsock) },
    ...options.shared.map((folder) => ({ name: `fs "${folder.tag}"`, server: native().serveVhostUser(folder.device, socketOf(folder)) })),
  ];
  const args = qemuArguments({ ...options, accelerator: driver.accelerator, tscKhz: driver.accelerator === "tcg" ? native().tscKhz() : 0, sockets });
  const { child, consoleWritten } = spawnQemu(driver, args, options.consoleLog);
  const exited = new Promise<boolean>((done) => child.once("exit", () => done(true)).once("error", () => done(true)));
  // QEMU and the guest go on without a device for ever.
  let broken: MachineEnd | undefined;
  const lose = async (name: string, why: string | null): Promise<void> => {
    // At its end QEMU lets go of all of them; before it does so when a message cannot be sent: for want of descriptors, as one example.
    if (why === null && (await Promise.race([exited, after(LAST_STEPS_MS, false, { ref: false })]))) return;
    broken ??= { by: "hypervisor", what: why === null ? `qemu has let go of the ${name} device` : `the ${name} device failed: ${why}` };
    child.kill("SIGKILL");
  };
  for (const { name, server } of backends) void server.ended.then((why) => lose(name, why));
  const ended = new Promise<MachineEnd>((done) => {
    child.once("error", (error) => done({ by: "hypervisor", what: `qemu could not be started: ${error.message}` }));
    // Whoever is told of the end reads the console's last lines.
    child.once("exit", (code, signal) => void consoleWritten.then(() => done(broken ?? qemuEnd(code, signal))));
  }).finally(() => {
    for (const { server } of backends) server.close();
  });
  return { pid: child.pid, ended, attach: refuseDevice, kill: () => void child.kill("SIGKILL"), exits: () => [] };
}

function refuseDevice({ kind }: VirtioDevice): never {
  throw new TskataError("unavailable", `attach a ${kind} device: QEMU's microvm has no slots for devices that come after its start`);
}

/** Its stdout is the guest's console, in a pipe, because a file of its own would grow with what the guest prints. */
function spawnQemu(driver: QemuDriver, args: readonly string[], consoleLog: string): { child: ChildProcess; consoleWritten: Promise<void> } {
  const log = openSync(driver.log, "a", 0o600);
  const [read, write] = native().pipe();
  try {
    const consoleWritten = native().logConsole(read, consoleLog);
    const command = ["hypervisor", "--seccomp", driver.seccomp, "--", driver.program, ...args];
    return { child: spawn(driver.jail, command, { stdio: ["ignore", write, log] }), consoleWritten };
  } finally {
    native().closeFd(write);
    closeSync(log);
  }
}
