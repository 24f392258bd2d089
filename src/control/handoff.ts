/** Descriptors for the sandbox process: sent over <pod>/handoff.sock under a token that the request then names. */
import { randomHex } from "../base/random.ts";
import { native } from "../native.ts";
import type { Handoff } from "../protocols/generated/control.ts";

export interface HandedOver {
  readonly stdin?: number | undefined;
  readonly stdout?: number | undefined;
  readonly stderr?: number | undefined;
  readonly proxy: number;
}

/** Sends the descriptors, which stay the caller's. */
export function handOver(path: string, fds: HandedOver): Handoff {
  const token = randomHex(16);
  const socket = native().connectUnix(path, "seqpacket");
  try {
    const order = [fds.stdin, fds.stdout, fds.stderr, fds.proxy].filter((fd) => fd !== undefined);
    native().sendFds(socket, Buffer.from(token), order);
  } finally {
    native().closeFd(socket);
  }
  return { token, stdin: fds.stdin !== undefined, stdout: fds.stdout !== undefined, stderr: fds.stderr !== undefined, proxy: true };
}
