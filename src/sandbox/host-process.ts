/**
 * One guest process as the host has it: the pumps of its stdio and its proxy.
 *
 *   caller's stdin  ─relay─► vsock stream ─► guest       the exit is told to the proxy when every byte that the process
 *   caller's stdout ◄─relay─ vsock stream ◄─ guest       wrote has been written to the caller's descriptors
 */
import { writeSync } from "node:fs";
import { within } from "../base/deadline.ts";
import { TskataError } from "../base/errors.ts";
import { native, type PacketSocket, type Relay, type VirtioDevice } from "../native.ts";
import { STDIO_PORT, STREAM_ID_BYTES } from "../protocols/agent-service.ts";
import type { Stdio } from "../protocols/generated/agent.ts";
import { closeAll, type Descriptors } from "./handoffs.ts";

export interface ProxyRequests {
  signal(signal: number): void;
  resize(rows: number, columns: number): void;
  /** The proxy was killed or has died: its guest process must, too. */
  gone(): void;
}

let lastStreamId = 0n;

export class HostProcess {
  /** Stream ids, for the request that makes the guest process. */
  readonly stdio: Stdio;
  /** 0 until the proxy has said it. */
  proxyPid = 0;
  readonly #streams: { stdin?: number; stdout?: number; stderr?: number };
  #fds: Descriptors;
  #stdin: Relay | undefined;
  #outputs: { readonly stdout: Relay | undefined; readonly stderr: Relay | undefined } = { stdout: undefined, stderr: undefined };
  #proxy: PacketSocket | undefined;
  #ended = false;

  private constructor(fds: Descriptors, stdio: Stdio, streams: { stdin?: number; stdout?: number; stderr?: number }) {
    this.#fds = fds;
    this.stdio = stdio;
    this.#streams = streams;
  }

  /** Connects a stream for each descriptor there is, all at once: each costs a way to the guest and back. On failure everything is closed. */
  static async connect(vsock: VirtioDevice, fds: Descriptors, timeoutMs: number): Promise<HostProcess> {
    const names = (["stdin", "stdout", "stderr"] as const).filter((name) => fds[name] !== undefined);
    const ids = { stdin: 0n, stdout: 0n, stderr: 0n };
    for (const name of names) ids[name] = ++lastStreamId;
    const opened = await Promise.allSettled(names.map(async (name) => await openStream(vsock, ids[name], timeoutMs)));
    const streams: { stdin?: number; stdout?: number; stderr?: number } = {};
    for (const [index, name] of names.entries()) {
      const stream = opened[index];
      if (stream?.status === "fulfilled") streams[name] = stream.value;
    }
    const failed = opened.find((stream) => stream.status === "rejected");
    if (failed === undefined) return new HostProcess(fds, ids, streams);
    closeAll([...Object.values(streams), ...Object.values(fds)]);
    throw failed.reason;
  }

  /** The guest process is there (it may still wait for its start): output flows, the proxy is heard. */
  begin(requests: ProxyRequests): void {
    for (const name of ["stdout", "stderr"] as const) {
      const [fd, stream] = this.#give(name);
      this.#outputs = { ...this.#outputs, [name]: relay(stream, fd) };
    }
    const [proxy] = this.#give("proxy");
    if (proxy !== undefined) this.#proxy = native().packetSocket(proxy, (message) => this.#onProxy(message, requests));
  }

  /** The guest process runs: input flows. Not before, so that a container that is never started has not taken its caller's input. */
  beginInput(): void {
    const [fd, stream] = this.#give("stdin");
    this.#stdin = relay(fd, stream);
  }

  /** A descriptor and its stream, not ours from now on: whoever takes them has closed them also when it could not begin. */
  #give(name: "stdin" | "stdout" | "stderr" | "proxy"): [fd: number | undefined, stream: number | undefined] {
    const fd = this.#fds[name];
    this.#fds = { ...this.#fds, [name]: undefined };
    if (name === "proxy") return [fd, undefined];
    const stream = this.#streams[name];
    delete this.#streams[name];
    return [fd, stream];
  }

  closeInput(): void {
    this.#stdin?.stop();
  }

  /** Resolves when this many bytes have reached the caller, or can't any more. */
  async delivered(stdout: bigint, stderr: bigint): Promise<void> {
    await Promise.all([this.#outputs.stdout?.reached(stdout), this.#outputs.stderr?.reached(stderr)]);
  }

  /** Resolves when the outputs have ended by themselves: the guest has gone, and what it sent is delivered. */
  async outputsEnded(): Promise<void> {
    await Promise.all([this.#outputs.stdout?.ended, this.#outputs.stderr?.ended]);
  }

  /** The process has ended: its proxy ends alike. Outputs that others in the guest still hold go on. */
  end(waitStatus: number): void {
    const status = Buffer.alloc(5);
    status.write("X", "latin1");
    status.writeInt32LE(waitStatus, 1);
    try {
      this.#proxy?.send(status);
    } catch {
      // Killed meanwhile: nobody is left to tell.
    }
    this.#close();
  }

  /** The process is lost: its proxy dies by SIGKILL. */
  lose(): void {
    this.#close();
  }

  /** As lose, and its outputs end now. */
  abandon(): void {
    this.#close();
    this.#outputs.stdout?.stop();
    this.#outputs.stderr?.stop();
  }

  #close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stdin?.stop();
    this.#proxy?.close();
    closeAll([...Object.values(this.#fds), ...Object.values(this.#streams)]);
    this.#fds = { stdin: undefined, stdout: undefined, stderr: undefined, proxy: undefined };
    for (const name of ["stdin", "stdout", "stderr"] as const) delete this.#streams[name];
  }

  #onProxy(message: Buffer | null, requests: ProxyRequests): void {
    if (this.#ended) return;
    if (message === null) requests.gone();
    else if (message[0] === 0x50 && message.length >= 5) this.proxyPid = message.readUInt32LE(1);
    else if (message[0] === 0x53 && message.length >= 2) requests.signal(message.readUInt8(1));
    else if (message[0] === 0x57 && message.length >= 5) requests.resize(message.readUInt16LE(1), message.readUInt16LE(3));
  }
}

function relay(source: number | undefined, destination: number | undefined): Relay | undefined {
  return source === undefined || destination === undefined ? undefined : native().relay(source, destination);
}

/** A guest that is stopped, or has no room for another connection, does not answer at all. */
async function openStream(vsock: VirtioDevice, id: bigint, timeoutMs: number): Promise<number> {
  const late = (): Error => new TskataError("timeout", `the guest did not take a stdio stream in ${timeoutMs / 1000} s`);
  const fd = await within(timeoutMs, native().connectVsock(vsock, STDIO_PORT), late, (unwanted) => native().closeFd(unwanted));
  const tag = Buffer.alloc(STREAM_ID_BYTES);
  tag.writeBigUInt64BE(id);
  writeSync(fd, tag);
  return fd;
}
