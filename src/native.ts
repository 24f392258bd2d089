/**
 * The one typed door to the native addon.
 *
 * Everything TypeScript may ask of C++ is declared here and nowhere else. The addon checks its arguments again, throws
 * `Error` with `code` (errno name, "EPERM") and `syscall` on failure, and never throws across a callback.
 */
import { createRequire } from "node:module";
import { join } from "node:path";

/** Moves bytes from one descriptor to another on a native thread; owns both descriptors and closes them at its end. */
export interface Relay {
  /** Bytes written to the destination so far. */
  readonly moved: bigint;
  /** Resolves with the bytes read from the source once it has been read until empty (EAGAIN) or to its end. */
  drained(): Promise<bigint>;
  /** Resolves once `bytes` have been written to the destination, or the relay has ended. */
  reached(bytes: bigint): Promise<void>;
  /** Ends the relay now; idempotent. `ended` resolves. */
  stop(): void;
  /** Resolves when both descriptors are closed: errno name of what ended it, or null at end of file. */
  readonly ended: Promise<string | null>;
}

/** `receiveBytes`: what each stream holds for a reader that is behind, 256 KiB unless said. */
export type StreamAddress = { readonly vsockPort: number; readonly receiveBytes?: number } | { readonly unixPath: string };

/** Works by itself until it is closed, whether anything holds the object or not. */
export interface Closable {
  close(): void;
}

/** A process made by the launcher, waiting before its execve or, launched to go, past it. */
export interface LaunchedProcess {
  readonly pid: number;
  /** Pty master when the plan asked for a terminal; the caller owns it. */
  readonly terminal: number | null;
  /** Lets a waiting process go to its execve; rejects with a LaunchFailure. */
  release(): Promise<void>;
}

/** What the launcher reports when a step of a plan fails. */
export interface LaunchFailure extends Error {
  /** The step with its argument: "mount /proc". */
  readonly step: string;
  /** Errno name: "EPERM". */
  readonly code: string;
}

/** A virtio device backend that a transport can attach. */
export interface VirtioDevice {
  readonly kind: "vsock" | "fs" | "blk" | "rng" | "balloon" | "pmem" | "net";
  close(): void;
}

/** A vhost-user server for one device; the socket file is removed on close. */
export interface VhostUserServer extends Closable {
  /** Resolves when the front-end (QEMU) has disconnected or was refused: null, or why. */
  readonly ended: Promise<string | null>;
}

export interface FsOptions {
  root: string;
  tag: string;
  threads: number;
  patienceUs?: number;
  keeperFd?: number | undefined;
  writeback?: boolean;
  share?: number;
}

/** A change of the host's to a volume: native/devices/fs/host_watch.h. */
export interface HostChange {
  /** create, remove, rename, modify, attributes, close_write. */
  readonly kind: number;
  readonly directory: boolean;
  /** Node ids of the file server; 0: where nobody watches. */
  readonly folder: bigint;
  readonly name: Uint8Array;
  readonly newFolder: bigint;
  readonly newName: Uint8Array;
}

export interface TreeAttributes {
  readonly readonly: boolean;
  readonly nodev: boolean;
  readonly nosuid: boolean;
  readonly recursive: boolean;
  readonly propagation?: "private" | "slave";
}

export interface Native {
  // -- descriptors and processes (host and guest) ------------------------------------------------------------------
  closeFd(fd: number): void;
  /** A connected pair of unix sockets, both close-on-exec. */
  socketpair(type: "stream" | "seqpacket"): [number, number];
  /** A pipe [read, write], both close-on-exec. */
  /** With room for so many bytes, where the kernel's limits allow it; 64 KiB unless said. */
  pipe(bytes?: number): [number, number];
  /** Duplicates with close-on-exec. */
  dupFd(fd: number): number;
  /** Sends one message with descriptors (SCM_RIGHTS) over a connected socket descriptor. The descriptors stay the caller's. */
  sendFds(socket: number, message: Uint8Array, fds: number[]): void;
  /** Connects to a unix socket by path (any length: opened by its folder) and returns the descriptor. */
  connectUnix(path: string, type: "stream" | "seqpacket"): number;
  /** Accepts on a seqpacket socket bound at `path`; each message (≤ 4096 bytes, ≤ 16 descriptors) is one call back. Unlinks on close. */
  receiveFds(path: string, onMessage: (message: Buffer, fds: number[]) => void): Closable;
  /** Sends and receives on a connected seqpacket socket descriptor that it owns from then on; `null` message means the peer is gone. */
  packetSocket(fd: number, onMessage: (message: Buffer | null) => void): PacketSocket;
  /** Opens a host pty: master, and the slave in raw mode without echo. */
  openHostPty(): { master: number; slave: number };
  /** TIOCGWINSZ / TIOCSWINSZ. */
  getWindowSize(fd: number): { rows: number; columns: number };
  setWindowSize(fd: number, rows: number, columns: number): void;
  isatty(fd: number): boolean;
  /** Puts a terminal in raw mode and returns what puts it back. */
  makeRaw(fd: number): () => void;

  // -- clock ---------------------------------------------------------------------------------------------------------
  /** CLOCK_REALTIME in nanoseconds since 1970; Date.now() has milliseconds. */
  wallClock(): bigint;
  /** Calls back whenever the clock is set, or the machine has slept; does not keep the process alive. */
  watchWallClock(onSet: () => void): Closable;

  // -- locks ---------------------------------------------------------------------------------------------------------
  /** flock(2) on a file or a folder: a descriptor that is the lock until it is closed, or null when someone holds it. */
  tryLockFile(path: string): number | null;

  // -- mounts (host, privileged side) --------------------------------------------------------------------------------
  /** open_tree(OPEN_TREE_CLONE [| AT_RECURSIVE]): a detached copy of the mount at `path`. */
  openTree(path: string, recursive: boolean): number;
  /** mount_setattr on a detached tree. Only what is true, or given, is set. */
  setTreeAttributes(tree: number, attributes: TreeAttributes): void;
  /**
   * In the mount namespace of `pid`, makes `target` (folder or empty file, parents too, below `root`, following no symlink)
   * and moves the detached tree there; with "if-empty" unless something is mounted there. Runs on a thread of its own that joins that namespace.
   */
  placeTree(tree: number, pid: number, root: string, target: string, kind: "directory" | "file", when: "always" | "if-empty"): Promise<void>;
  /** In the mount namespace of `pid`, unmounts (MNT_DETACH) everything below `root`/`target` and removes what it made. */
  removeTree(pid: number, root: string, target: string): Promise<void>;

  // -- guest ---------------------------------------------------------------------------------------------------------
  /** Listens on an AF_VSOCK port (or, for tests, on a unix socket path). Every accepted connection is a descriptor the callback owns. */
  listenStream(address: StreamAddress, onConnection: (fd: number) => void): Closable;
  /** As listenStream, but first reads the 8-byte big-endian stream id each connection opens with. */
  listenTagged(address: StreamAddress, onConnection: (fd: number, id: bigint) => void): Closable;
  /** Connects to a port of the host and returns the descriptor. Blocks for as long as the host's device takes to answer. */
  connectVsockHost(port: number): number;
  /** Turns a stream socket descriptor of any family into one end of a unix socketpair that net.Socket takes; bytes are relayed. */
  bridge(fd: number): number;
  /** Reaps every child, for PID 1: called once a dead process with its wait status as waitpid gives it. */
  startReaper(onExit: (pid: number, waitStatus: number) => void): void;
  mount(source: string, target: string, type: string, flags: number, data: string): void;
  umount(target: string, flags: number): void;
  /** syncfs(2), on the calling thread: of the agent's main one a file server knows that it is the agent's. */
  syncfs(folder: string): void;
  sethostname(name: string): void;
  /** Brings the wall clock so many nanoseconds forward: at once with `step`, and from a tenth of a second on; else the kernel slews it. */
  adjustWallClock(nanoseconds: bigint, step: boolean): void;
  addEntropy(bytes: Uint8Array): void;
  /** reboot(2): "poweroff" | "restart". */
  reboot(how: "poweroff" | "restart"): void;
  /** Makes a link usable: loopback up. */
  setLinkUp(name: string): void;
  kill(pid: number, signal: number): void;
  /**
   * Does in the shared tree, mounted at the path, what the host has done: its file server answers without doing it again. Changes whose folder is
   * no more are left out; how many is the answer.
   */
  replayChanges(sharedTree: string, changes: readonly HostChange[]): number;
  /** Loads a BPF device program (bpf(2) instructions) and makes it the only one of a cgroup v2 folder. */
  setDeviceFilter(cgroup: string, program: Uint8Array): void;

  // -- relay ---------------------------------------------------------------------------------------------------------
  /**
   * Starts moving bytes from `source` to `destination`, taking both descriptors over; EBADF, with nothing taken, when one is not open.
   * A patient one does not preempt who fills its source or empties its destination: it comes when that one waits, and there is more to move.
   */
  relay(source: number, destination: number, patient?: boolean): Relay;

  // -- launcher (guest) ------------------------------------------------------------------------------------------------
  /**
   * Runs the launcher executable with a plan (see native/launcher/plan.h). `stdio` are the child's 0, 1, 2 (−1: from the
   * terminal the plan asks for); they stay the caller's. With `goes` it does not wait for its release. Rejects with a LaunchFailure.
   */
  launch(options: { launcher: string; plan: Uint8Array; stdio: [number, number, number]; goes?: boolean }): Promise<LaunchedProcess>;

  // -- devices (host, sandbox process) ---------------------------------------------------------------------------------
  /**
   * virtio-vsock. `path` is the base of the host's sockets, relative to the working folder or absolute:
   * `path` speaks Firecracker's "CONNECT port\n"; `path_g<port>` for each of `guestPorts` connects straight to that guest port;
   * a guest connection to host port P is passed to a listener at `path_<P>`.
   */
  createVsock(options: { guestCid: number; path: string; guestPorts: number[] }): VirtioDevice;
  /** Connects to a guest port through the device itself, no socket file: one end of a unix socketpair. */
  connectVsock(device: VirtioDevice, port: number): Promise<number>;
  /** The machine has ended: who waits for the guest's driver, or comes to, is refused at once (ENOTCONN; sockets close). */
  guestHasGone(vsock: VirtioDevice): void;
  /**
   * virtio-fs over the folder `root`. `patienceUs`: how long a thread looks for the guest's next request before it waits for the notification (native/
   * virtio/queue_workers.h). `keeperFd` is the keeper of handles, taken over: a socket of native/keeper/protocol.h. `writeback`: the guest's kernel keeps
   * what is written (native/devices/fs/server.h). `share`: the part that it may have of this process's descriptors.
   */
  createFs(options: FsOptions): VirtioDevice;
  /** The host's next changes to what the guest knows of volumes, at most so many, in their order; waits until there is one. One call at a time. */
  hostChanges(fs: VirtioDevice, most: number): Promise<HostChange[]>;
  /**
   * virtio-blk: a regular file or block device as a disk of whole 512-byte sectors. A descriptor stays the caller's. `id` (at most
   * 20 bytes) is what the guest sees as the serial number.
   */
  createBlk(options: ({ path: string } | { fd: number }) & { readonly: boolean; id: string }): VirtioDevice;
  /** virtio-rng: the host's random bytes. */
  createRng(): VirtioDevice;
  /** virtio-balloon with free page reporting. Pages given up go back to the host at once. */
  createBalloon(): VirtioDevice;
  /** Asks the guest to give up so many pages of 4096 bytes in all; it comes there as it can, or never. */
  setBalloonTarget(balloon: VirtioDevice, pages: number): void;
  /** Pages that the guest's driver says it has given up. */
  balloonActual(balloon: VirtioDevice): number;
  /**
   * virtio-pmem: tells the guest of a file mapped at `guestAddress` (whole pages), which is the VMM's to map. `fd` is synced when the guest
   * flushes and stays the caller's; without it the memory is of an image that nobody writes.
   */
  createPmem(options: { guestAddress: bigint; size: bigint; fd?: number }): VirtioDevice;
  /**
   * virtio-net on tap descriptors made with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, which stay the caller's: one a pair of queues, with
   * IFF_MULTI_QUEUE when there are several. `mac` has 6 bytes; an `mtu` of 0 is not told.
   */
  createNet(options: { taps: number[]; mac: Uint8Array; mtu: number }): VirtioDevice;
  /** Opens KVM's device file. */
  openKvm(path: string): KvmSystem;
  /** Frequency of the host's time stamp counter in kHz, measured for 10 ms; 0 where there is none. */
  tscKhz(): number;
  /**
   * Writes what comes through the pipe `source`, taken over, to a file that keeps the beginning and the end within 1 MiB
   * (native/devices/console). Resolves when the last writer has gone and all is written.
   */
  logConsole(source: number, path: string): Promise<void>;
  serveVhostUser(device: VirtioDevice, socketPath: string): VhostUserServer;

  // -- jail (host, sandbox process) ------------------------------------------------------------------------------------
  /** Before any device is made: this process will be jailed, and native threads wait for that. */
  planJail(): void;
  /** Every thread gives up what its role does not need (native/jail/jail.h). Throws when one can't: then nothing may run. */
  closeJail(seccomp: "enforce" | "log" | "off"): void;
}

/** /dev/kvm (KVM API §4). Byte layouts are the kernel's structures. */
export interface KvmSystem {
  readonly apiVersion: number;
  /** KVM_CHECK_EXTENSION: 0 when it is not there. */
  capability(number: number): number;
  /** kvm_cpuid_entry2[]. */
  supportedCpuid(): Buffer;
  /** Registers that make up a vCPU's state. */
  msrIndices(): number[];
  createMachine(): KvmMachine;
  close(): void;
}

export interface KvmEnding {
  readonly kind: "reset" | "shutdown" | "halt" | "internal-error" | "entry-failure" | "system-event" | "unknown-exit" | "error" | "host-error";
  readonly vcpu: number;
  /** Suberror, hardware reason, event type, exit reason or errno. */
  readonly detail: bigint;
  readonly instruction: bigint;
}

export type VcpuStatePart = "regs" | "sregs" | "fpu" | "xsave" | "xcrs" | "lapic" | "events" | "debugregs" | "mp_state";
export type MachineStatePart = "clock" | "pic-master" | "pic-slave" | "ioapic";

/** A virtual machine. Addresses and sizes are in bytes, in the guest's physical address space. */
export interface KvmMachine {
  /** Why it stopped by itself, every vCPU with it; never settles for one that was closed before it did. */
  readonly ended: Promise<KvmEnding>;
  // -- before it runs, in this order
  addMemory(address: number, bytes: number): void;
  /** A whole file, read-only for the guest, zeros behind it up to `bytes`; its pages are shared by all who show it. */
  addFile(address: number, path: string, bytes: number): void;
  createIrqchip(): void;
  createVcpu(): number;
  /** A 16550A whose output goes to a log file of bounded size. */
  addUart(port: number, line: number, log: string): void;
  /** A port where the pulse on the keyboard controller's reset line ends the machine. */
  addResetPort(port: number): void;
  /** A virtio-mmio slot of 4 KiB, a placeholder until a device is attached. */
  addSlot(address: number, line: number): number;
  // -- memory
  write(address: number, bytes: Uint8Array): void;
  read(address: number, bytes: number): Buffer;
  /** Reads a file's bytes straight into memory. */
  load(address: number, fd: number, fileOffset: number, bytes: number): void;
  /** One bit a page written since the last call; the first call begins the log. */
  dirtyLog(address: number): Buffer;
  // -- state: only while no vCPU runs; refused while one does
  vcpuState(vcpu: number, part: VcpuStatePart): Buffer;
  setVcpuState(vcpu: number, part: VcpuStatePart, bytes: Uint8Array): void;
  setCpuid(vcpu: number, entries: Uint8Array): void;
  /** kvm_msr_entry[], as many as could be read before one was refused. */
  msrs(vcpu: number, entries: Uint8Array): Buffer;
  setMsrs(vcpu: number, entries: Uint8Array): number;
  state(part: MachineStatePart): Buffer;
  setState(part: MachineStatePart, bytes: Uint8Array): void;
  // -- while it runs
  attach(slot: number, device: VirtioDevice): void;
  start(): void;
  /** Returns when every vCPU has left the guest with its last access completed. */
  pause(): void;
  resume(): void;
  /** Exits to this process by cause ("io 0x3f8", "mmio 0xd0000000"; beyond some hundred causes "mmio elsewhere"), one record a vCPU. */
  exits(): Record<string, number>[];
  /** KVM's own counters, one record a vCPU. */
  statistics(): Record<string, number>[];
  /** Ends the vCPUs, stops the devices' queues and unmaps the memory; idempotent. */
  close(): void;
}

export interface PacketSocket extends Closable {
  send(message: Uint8Array): void;
}

let loaded: Native | undefined;

/** The addon, loaded on first use: commands that need no system call never pay for it. */
export function native(): Native {
  loaded ??= createRequire(import.meta.filename)(addonPath()) as Native;
  return loaded;
}

/** Beside the bundle it is loaded from, or the repository's for sources run as they are; TSKATA_ADDON names another. */
function addonPath(): string {
  const bundled = import.meta.filename.endsWith(".cjs");
  return process.env["TSKATA_ADDON"] ?? join(import.meta.dirname, bundled ? "tskata.node" : "../dist/lib/tskata.node");
}
