/**
 * The descriptors a container process gets as its stdio, and who else has a hand in them.
 *
 *   inherited   our own 0, 1, 2: pipes and FIFOs of the caller, or its terminal when there is one and we stay
 *   console     a new pty: its master goes to the caller over --console-socket, its slave is stdin and stdout
 */
import { TskataError } from "../base/errors.ts";
import { native } from "../native.ts";

export interface StdioPlan {
  readonly terminal: boolean;
  /** Stays with the caller until `close`. */
  readonly stdin: number;
  readonly stdout: number;
  /** Absent with a terminal. */
  readonly stderr: number | undefined;
  /** The pty's slave, for the proxy: its controlling terminal tells it of new window sizes. */
  readonly slave: number | undefined;
  close(): void;
}

export interface StdioOptions {
  readonly terminal: boolean;
  readonly consoleSocket: string | undefined;
  readonly detach: boolean;
  /** process.consoleSize of the spec. */
  readonly size?: { readonly height: number; readonly width: number } | undefined;
}

export function planStdio(options: StdioOptions): StdioPlan {
  checkConsole(options);
  if (options.consoleSocket !== undefined) return consolePlan(options.consoleSocket, options.size);
  const close = (): void => {};
  if (options.terminal) return { terminal: true, stdin: 0, stdout: 1, stderr: undefined, slave: undefined, close };
  return { terminal: false, stdin: 0, stdout: 1, stderr: 2, slave: undefined, close };
}

/** runc's rules and words. */
export function checkConsole({ terminal, consoleSocket, detach }: StdioOptions): void {
  if (terminal && detach && consoleSocket === undefined) {
    throw new TskataError("invalid", "cannot allocate tty if tskata will detach without setting console socket");
  }
  if (consoleSocket !== undefined && !(terminal && detach)) {
    throw new TskataError("invalid", "cannot use console socket if tskata will not detach or allocate tty");
  }
}

/** The message with the master is the pty's name, as runc sends it. */
function consolePlan(socketPath: string, size: StdioOptions["size"]): StdioPlan {
  const { master, slave } = native().openHostPty();
  const close = (): void => native().closeFd(slave);
  try {
    if (size !== undefined) native().setWindowSize(slave, size.height, size.width);
    sendMaster(socketPath, master);
  } catch (error) {
    close();
    throw new TskataError("unavailable", `send the terminal to the console socket ${socketPath}`, { cause: error });
  } finally {
    native().closeFd(master);
  }
  return { terminal: true, stdin: slave, stdout: slave, stderr: undefined, slave, close };
}

function sendMaster(socketPath: string, master: number): void {
  const socket = native().connectUnix(socketPath, "stream");
  try {
    native().sendFds(socket, Buffer.from("/dev/ptmx"), [master]);
  } finally {
    native().closeFd(socket);
  }
}
