/**
 * Creating a container, read top-down: what was asked is checked, then each step leaves behind how to undo it, and the
 * first failure undoes them all, last first. Nothing the guest says is parsed here: the sandbox process does that.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { errorChain, TskataError } from "../base/errors.ts";
import { type ContainerPaths, cgroupName, containerPaths, type Installation, installation, podPaths } from "../base/paths.ts";
import { bootId, isAlive, type ProcessRef, processRef } from "../base/process.ts";
import { OCI_VERSION } from "../base/version.ts";
import { applyAnnotations } from "../config/annotations.ts";
import { type Config, loadConfig } from "../config/config.ts";
import { cgroupPath, createCgroup, planCgroup, removeCgroup } from "../host/cgroup.ts";
import { lock } from "../host/lock.ts";
import { ownVolumes, type PodVolume, volumesOfPod } from "../host/own-volumes.ts";
import { placePodTrees, placeTrees } from "../host/trees.ts";
import { type Bundle, loadBundle } from "../oci/bundle.ts";
import { type GuestPod, type GuestSpec, guestSpec } from "../oci/guest-spec.ts";
import { runHooks, runHooksLeniently } from "../oci/hooks.ts";
import { joinedNamespaces, podRole } from "../oci/pod.ts";
import { hookState } from "../oci/state.ts";
import { checkId, exitPath, readState, type StateFile, writeState } from "../oci/state-file.ts";
import type { Logger } from "../telemetry/logger.ts";
import { inPhase, SpanRecorder } from "../telemetry/spans.ts";
import { explained } from "./explained.ts";
import { terminalSize } from "./foreground.ts";
import type { Interrupt } from "./interrupt.ts";
import { connectPod, handOver, type PodClient } from "./pod-client.ts";
import { preparePod, removePodFolder } from "./pod-folder.ts";
import { findByProxy, findPodByNamespaces, findPodOwner, sandboxRef } from "./pods.ts";
import { type ProxyProcess, startProxy } from "./proxy.ts";
import { type SandboxProcess, startSandbox } from "./sandbox-process.ts";
import { planStdio, type StdioPlan } from "./stdio.ts";
import { aimFaultAt } from "./victims.ts";

export interface CreateOptions {
  readonly id: string;
  readonly root: string;
  readonly bundle: string;
  readonly config: string | undefined;
  readonly systemdCgroup: boolean;
  readonly consoleSocket: string | undefined;
  /** False when the caller stays and passes its own stdio (`run` without --detach). */
  readonly detach: boolean;
  readonly pidFile: string | undefined;
  readonly noPivot: boolean;
  readonly noNewKeyring: boolean;
  readonly logger: Logger;
  readonly interrupt: Interrupt;
}

export interface Created {
  readonly state: StateFile;
  readonly bundle: Bundle;
  readonly proxy: ProxyProcess;
}

/** What the first step is given. */
interface Request {
  readonly options: CreateOptions;
  readonly bundle: Bundle;
  readonly undo: AsyncDisposableStack;
  readonly spans: SpanRecorder;
  /** What comes after everything is undone: poststop hooks. */
  readonly afterwards: AsyncDisposableStack;
  /** For a failure's explanation. */
  readonly surroundings: { podFolder: string; guestFiles: readonly string[] };
}

/** What the steps hand to each other. */
interface Work extends Request {
  readonly files: Installation;
  readonly paths: ContainerPaths;
  /** Below every hierarchy's mount. */
  readonly cgroup: string;
  state: StateFile;
}

export async function createContainer(options: CreateOptions): Promise<Created> {
  checkId(options.id);
  const spans = new SpanRecorder("cli");
  const endAll = spans.begin("create");
  const bundle = await spans.measure("read bundle", () => loadBundle(options.bundle, (message) => options.logger.warning(message)));
  await using afterwards = new AsyncDisposableStack();
  await using undo = new AsyncDisposableStack();
  const surroundings = { podFolder: containerPaths(options.root, options.id).pod, guestFiles: [] };
  try {
    const work = await spans.measure("take the id", () => begin({ options, bundle, undo, afterwards, spans, surroundings }));
    const proxy = await inPhase("create", () => make(work)); // what is between two steps
    endAll();
    undo.move();
    afterwards.move();
    return { state: work.state, bundle, proxy };
  } catch (error) {
    // Now, because undoing takes the pod's folder and its logs away.
    throw explained(error, surroundings);
  }
}

async function make(work: Work): Promise<ProxyProcess> {
  const { options, bundle, undo } = work;
  await work.spans.measure("make the cgroup", () => makeCgroup(work));
  const pod = podOf(work);
  const own = ownVolumes(bundle, pod.volumes, (message) => options.logger.warning(message));
  const guest = guestSpec(options.id, bundle, pod, own);
  const sandbox = await pod.enter();

  const size = bundle.process.consoleSize ?? (options.consoleSocket === undefined ? terminalSize() : undefined);
  const terminal = bundle.process.terminal ?? false;
  if (terminal && size !== undefined && guest.spec.process !== undefined) guest.spec.process.consoleSize = size;
  const stdio = planStdio({ ...options, terminal, size });
  using _stdio = { [Symbol.dispose]: () => stdio.close() };
  const placed = work.spans.measure("place root filesystem and mounts", async () => {
    await placeAll(work, guest, sandbox.ref.pid);
  });
  const ready = work.spans.measure("wait for the virtual machine", () => sandbox.ready());
  await options.interrupt.race(bothReady(sandbox.ref, ready, placed));
  update(work, { sharedTargets: guest.placements.map((placement) => placement.target) });

  const proxy = await work.spans.measure("start the proxy", () => startContainerProxy(work, stdio));
  using _socket = closing(proxy);
  await options.interrupt.race(runCreateHooks(work));
  using client = await connectPod(work.state.pod);
  await options.interrupt.race(work.spans.measure("create in the guest", () => createInGuest(work, client, stdio, proxy, guest)));

  await work.spans.measure("tell that it is created", () => {
    if (options.pidFile !== undefined) writePidFile(options.pidFile, proxy.ref.pid, undo);
    update(work, { status: "created" });
  });
  return proxy;
}

// -- steps ----------------------------------------------------------------------------------------------------------------

/** Takes the id, and writes down what is going to be made and by whom: whoever cleans up after a crash finds it there. */
function begin(request: Request): Work {
  const { options, bundle, undo } = request;
  const { id, root } = options;
  const paths = containerPaths(root, id);
  mkdirSync(root, { recursive: true, mode: 0o711 });
  takeId(paths.folder);
  undo.defer(() => removePodFolder(paths.folder));
  aimFaultAt(root, id);
  const cgroup = cgroupPath(bundle.linux.cgroupsPath, cgroupName(root, id), options.systemdCgroup);
  const planned = planCgroup(cgroup);
  const creator = processRef(process.pid);
  if (creator === undefined) throw new TskataError("internal", "/proc does not show this process: is it mounted?");
  const state: StateFile = {
    version: 1,
    id,
    ociVersion: OCI_VERSION,
    bundle: bundle.folder,
    rootfs: bundle.rootfs,
    annotations: bundle.spec.annotations ?? {},
    created: rfc3339Nano(new Date()),
    boot: bootId(),
    owner: process.getuid?.() ?? 0,
    status: "creating",
    creator,
    pod: { id, folder: paths.pod, cgroups: [] },
    cgroups: [...planned.missing],
    cgroupFolders: [...planned.folders],
    sharedTargets: [],
    terminal: bundle.process.terminal ?? false,
  };
  writeState(root, state);
  writeFileSync(join(paths.folder, "spec.json"), JSON.stringify(bundle.spec), { mode: 0o600 });
  return { ...request, files: installation(), paths, cgroup, state };
}

function makeCgroup(work: Work): void {
  const { made } = createCgroup(work.cgroup);
  work.undo.defer(() => void removeCgroup(made));
  update(work, { cgroups: [...made] });
}

/** mkdir is the lock on an id: of two creates one gets it. */
function takeId(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new TskataError("exists", "container with given ID already exists");
  }
}

/** The sandbox a container goes to: where its trees are placed and when it can take them. */
interface PodSandbox {
  readonly ref: ProcessRef;
  ready(): Promise<void>;
}

interface OtherPod {
  readonly pod: StateFile["pod"];
  /** A container of it, as it is by now. */
  find(): StateFile;
}

/** The pod that the container goes to. */
interface Pod extends GuestPod {
  /** That its containers have by now. */
  readonly volumes: () => readonly PodVolume[];
  enter(): Promise<PodSandbox>;
}

function podOf(work: Work): Pod {
  const { root, config: configFile } = work.options;
  const other = podToJoin(work);
  if (other === undefined) {
    const config = applyAnnotations(loadConfig(configFile), work.state.annotations);
    const { writeback } = config.sandbox;
    return { id: work.options.id, writeback, containerOf: () => undefined, volumes: () => [], enter: async () => await startPod(work, config) };
  }
  const { id, folder, sandboxPid } = other.pod;
  return {
    id,
    writeback: other.pod.writeback ?? false,
    volumes: () => (sandboxPid === undefined ? [] : volumesOfPod(sandboxPid, podPaths(folder).shared)),
    containerOf: (pid) => findByProxy(root, folder, pid),
    enter: async () => await work.spans.measure("join the pod", () => joinPod(work, other)),
  };
}

/** The pod that this container joins: by its annotations, or by the namespaces it names. */
function podToJoin({ options, bundle, state }: Work): OtherPod | undefined {
  const role = podRole(options.id, state.annotations);
  if (role.kind === "member") return { pod: findPodOwner(options.root, role.podId).pod, find: () => findPodOwner(options.root, role.podId) };
  const named = findPodByNamespaces(options.root, joinedNamespaces(bundle.linux));
  return named === undefined ? undefined : { pod: named.pod, find: () => readState(options.root, named.id) };
}

async function startPod(work: Work, config: Config): Promise<PodSandbox> {
  const { options, bundle, state, files, undo, spans } = work;
  const pod = podPaths(state.pod.folder);
  const preparation = { id: options.id, config, files, resources: bundle.linux.resources, annotations: state.annotations, hostname: bundle.spec.hostname };
  const podConfig = await spans.measure("prepare the pod", () => preparePod(pod, preparation));
  work.surroundings.guestFiles = [podConfig.kernel, podConfig.image];
  spans.writeTo(pod.spans);
  const sandbox = await spans.measure("start sandbox process", async () => {
    const started: SandboxProcess = await startSandbox(files, pod.folder, state.cgroupFolders, podConfig);
    undo.defer(async () => await endSandbox(started, options.logger));
    const { pid: sandboxPid, startTime: sandboxStartTime } = started.ref;
    const limits = { callTimeoutMs: podConfig.callTimeoutMs, stopTimeoutMs: config.sandbox.stop_timeout_s * 1000 };
    const { writeback } = podConfig;
    update(work, { pod: { ...state.pod, sandboxPid, sandboxStartTime, ...limits, writeback, cgroups: state.cgroups } });
    return started;
  });
  return {
    ref: sandbox.ref,
    ready: async () => await sandbox.ready(podConfig.startTimeoutMs),
  };
}

async function endSandbox(sandbox: SandboxProcess, logger: Logger): Promise<void> {
  try {
    await sandbox.kill();
  } catch (error) {
    logger.warning(errorChain(error));
  }
}

/** Under the pod's lock, so that the pod's last container is not deleted in the same moment. */
async function joinPod(work: Work, { pod: { folder, id }, find }: OtherPod): Promise<PodSandbox> {
  const { root } = work.options;
  using _lock = await lock(folder, `pod ${id}`);
  const member = find();
  const sandbox = sandboxRef(member);
  if (sandbox === undefined || !isAlive(sandbox)) throw new TskataError("unavailable", `the pod ${id} has no running virtual machine`);
  update(work, { pod: member.pod });
  work.surroundings.podFolder = folder;
  aimFaultAt(root, work.options.id, folder);
  return { ref: sandbox, ready: async () => {} };
}

async function placeAll({ state: { pod }, undo }: Work, { placements, podPlacements }: GuestSpec, sandboxPid: number): Promise<void> {
  const { shared } = podPaths(pod.folder);
  await placeTrees(placements, sandboxPid, shared, undo);
  if (podPlacements.length === 0) return;
  // Another container of the pod may be given the same volume just now.
  using _lock = await lock(pod.folder, `pod ${pod.id}`);
  await placePodTrees(podPlacements, sandboxPid, shared);
}

/** In the pod's network namespace: hooks find it by the proxy's pid. */
async function startContainerProxy(work: Work, stdio: StdioPlan): Promise<ProxyProcess> {
  const network = work.bundle.linux.namespaces?.find(({ type }) => type === "network")?.path;
  const proxy = await startProxy(work.files.proxy, work.state.cgroupFolders, stdio.slave, network === undefined || network === "" ? "new" : network);
  work.undo.defer(() => proxy.kill());
  update(work, { proxy: proxy.ref });
  await proxy.ready;
  return proxy;
}

/** runtime.md "Lifecycle": prestart, createRuntime, createContainer, in this order; once they have begun, poststop ones follow a failure. */
async function runCreateHooks(work: Work): Promise<void> {
  const { spec, folder } = work.bundle;
  const { hooks } = spec;
  if (hooks === undefined) return;
  const warn = (message: string): void => work.options.logger.warning(message);
  work.afterwards.defer(async () => await runHooksLeniently(hooks.poststop, hookState(work.state, "stopped"), folder, warn));
  const state = hookState(work.state, "creating");
  const all = [...(hooks.prestart ?? []), ...(hooks.createRuntime ?? []), ...(hooks.createContainer ?? [])];
  if (all.length > 0) await work.spans.measure("hooks", () => runHooks(all, state, folder));
}

async function createInGuest(work: Work, client: PodClient, stdio: StdioPlan, proxy: ProxyProcess, guest: GuestSpec): Promise<void> {
  const { id, noPivot, noNewKeyring } = work.options;
  const handoff = handOver(work.state.pod.folder, stdio, proxy.socket);
  await client.create({
    containerId: id,
    spec: Buffer.from(JSON.stringify(guest.spec)),
    handoff,
    sharedNamespaces: new Map(Object.entries(guest.sharedNamespaces)),
    noPivot,
    noNewKeyring,
    exitFile: exitPath(work.state),
    bundle: guest.spec.hooks?.startContainer === undefined ? "" : work.bundle.folder,
  });
  work.undo.defer(async () => await forget(work.state, id));
}

/** Takes the container out of a pod that stays. */
async function forget(state: StateFile, id: string): Promise<void> {
  using client = await connectPod(state.pod);
  await client.delete({ containerId: id, force: true });
}

// -- small things ---------------------------------------------------------------------------------------------------------

function update(work: Work, change: Partial<StateFile>): void {
  work.state = { ...work.state, ...change };
  writeState(work.options.root, work.state);
}

/**
 * The machine boots while trees are placed. A tree that can't be placed fails at once, unless it is for want of the sandbox process, whose end
 * says why; a machine that can't boot only when the placing has ended, because undoing it meanwhile would leave what is placed last.
 */
async function bothReady(sandbox: ProcessRef, ready: Promise<void>, placed: Promise<void>): Promise<void> {
  const given = placed.catch(async (error: unknown) => {
    if (!isAlive(sandbox)) await ready;
    throw error;
  });
  await Promise.all([given, ready.catch(async (error: unknown) => await placed.catch(() => {}).then(() => Promise.reject(error)))]);
}

function closing(proxy: ProxyProcess): Disposable {
  return { [Symbol.dispose]: () => proxy.closeSocket() };
}

/** Renamed into place: a reader that sees the file sees the whole number. */
export function writePidFile(file: string, pid: number, undo?: AsyncDisposableStack): void {
  const draft = join(dirname(file), `.${process.pid}.pid`);
  try {
    writeFileSync(draft, String(pid), { mode: 0o644 });
    renameSync(draft, file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw new TskataError("unavailable", `write the pid file ${file}`, { cause: error });
  }
  undo?.defer(() => rmSync(file, { force: true }));
}

/** As Go prints a time in state.json; node's clock gives milliseconds. */
function rfc3339Nano(when: Date): string {
  return when.toISOString().replace(/\.(\d+)Z$/, (_, digits: string) => `.${digits.padEnd(9, "0")}Z`);
}
