/**
 * The proxy: a tiny native process that stands for a guest process on the host. Its pid is in the pid file, signals sent
 * to it go to the guest process, and it ends as that one ends. It talks with the sandbox over a seqpacket socket pair.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { TskataError } from "../base/errors.ts";
import { isEnding, type ProcessRef, processRef, signalProcess } from "../base/process.ts";
import { signalNumber } from "../base/signals.ts";
import { joinCgroup } from "../host/cgroup.ts";
import { native } from "../native.ts";

export interface ProxyProcess {
  readonly ref: ProcessRef;
  /** The sandbox's end of the socket pair; the caller hands it over and then closes it. */
  readonly socket: number;
  /** Resolves when it is in its cgroups and its network namespace; the caller kills it when that fails. */
  readonly ready: Promise<void>;
  /** How the guest process ended, as a shell says it: its code, or 128 and the signal. */
  readonly ended: Promise<{ code: number; signal: NodeJS.Signals | undefined }>;
  /** Lets this process exit before the proxy. */
  unref(): void;
  kill(): void;
  /** Closes `socket`; idempotent. */
  closeSocket(): void;
}

/** The socket's number in the proxy; a pty's slave is its stdin. */
const SOCKET_FD = 3;

/** `network`: "new" or a path, the namespace that its container's network is to be in; the caller's own without it. */
export async function startProxy(program: string, cgroups: readonly string[], slave: number | undefined, network?: string): Promise<ProxyProcess> {
  const [ours, theirs] = native().socketpair("seqpacket");
  let child: ChildProcess;
  try {
    child = spawn(program, [String(SOCKET_FD), ...(network === undefined ? [] : [network])], {
      cwd: "/",
      env: {},
      detached: true,
      stdio: [slave ?? "ignore", "pipe", "ignore", theirs],
    });
  } catch (error) {
    native().closeFd(ours);
    throw error;
  } finally {
    native().closeFd(theirs);
  }
  const ended = endOf(child, program);
  const ref = child.pid === undefined ? undefined : processRef(child.pid);
  if (ref === undefined) {
    native().closeFd(ours);
    await ended; // tells why
    throw new TskataError("unavailable", `start ${program}`);
  }
  const kill = (): void => void signalProcess(ref, "SIGKILL");
  const joined = joinCgroup(cgroups, ref.pid).catch((error: unknown) => {
    if (!isEnding(ref)) throw error; // one whose process has been quick is beyond cgroups
  });
  const ready = Promise.all([readiness(child.stdout), joined]).then(() => {});
  ready.catch(() => {}); // for who waits for it
  let open = true;
  const closeSocket = (): void => {
    if (open) native().closeFd(ours);
    open = false;
  };
  return { ref, socket: ours, ready, ended, unref: () => child.unref(), kill, closeSocket };
}

function endOf(child: ChildProcess, program: string): ProxyProcess["ended"] {
  const ended = new Promise<Awaited<ProxyProcess["ended"]>>((done, fail) => {
    child.once("error", (error) => fail(new TskataError("unavailable", `start ${program}`, { cause: error })));
    child.once("exit", (code, signal) => done({ code: code ?? 128 + (signal === null ? 0 : signalNumber(signal)), signal: signal ?? undefined }));
  });
  ended.catch(() => {}); // startProxy tells of it, or the waiting caller
  return ended;
}

/** What it prints is why it could not get ready. */
async function readiness(output: Readable | null): Promise<void> {
  let text = "";
  for await (const part of output ?? []) text += String(part);
  if (text !== "") throw new TskataError("unavailable", text);
}
