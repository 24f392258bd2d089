/**
 * `<root>/<id>/state.json`: what tskata itself keeps of a container between two calls, and what follows from it.
 *
 * The file is written whole and renamed, so a reader never sees half of it. The status in it is the last one a command
 * gave; whether the container still runs is asked of the kernel: a container is as alive as its proxy process.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import * as z from "zod/mini";
import { TskataError } from "../base/errors.ts";
import { containerPaths } from "../base/paths.ts";
import { readPodFile } from "../base/pod-file.ts";
import { bootId, isAlive } from "../base/process.ts";
import { sayIssues } from "../base/schema.ts";

// One schema a kind of field, used wherever such a field is: making one costs `state` as much as checking ten with it.
const text = z.string();
const texts = z.array(text);
const flag = z.boolean();
const whole = z.int();
const positive = whole.check(z.positive());
const formatVersion = z.literal(1);

const processRefSchema = z.object({ pid: positive, startTime: whole });

const podSchema = z.object({
  /** Id of the container that started the pod's VM. */
  id: text,
  folder: text,
  sandboxPid: z.optional(positive),
  /** sandbox.call_timeout_s when the pod was started. */
  callTimeoutMs: z.optional(positive),
  /** sandbox.stop_timeout_s when the pod was started. */
  stopTimeoutMs: z.optional(positive),
  sandboxStartTime: z.optional(whole),
  /** sandbox.writeback when the pod was started. */
  writeback: z.optional(flag),
  /** Host cgroup folders made for the pod's first container, deepest first: they hold the sandbox and go with it. */
  cgroups: texts,
});

const stateFileSchema = z.object({
  version: formatVersion,
  id: text,
  ociVersion: text,
  bundle: text,
  rootfs: text,
  annotations: z.record(text, text),
  /** RFC 3339 with nanoseconds, UTC. */
  created: text,
  /** The kernel's run in which it was created: the processes named here, and the cgroups, are of that one. */
  boot: z.optional(text),
  /** Uid that created it. */
  owner: whole,
  status: z.enum(["creating", "created", "running", "paused"]),
  /** The `create` that works on it while the status is "creating". */
  creator: processRefSchema,
  proxy: z.optional(processRefSchema),
  pod: podSchema,
  /** Host cgroup folders made for this container, deepest first. */
  cgroups: texts,
  /** Its cgroup in every hierarchy, made or found: where exec'ed processes' proxies go. */
  cgroupFolders: texts,
  /** What was placed below <pod>/shared, relative to it. */
  sharedTargets: texts,
  terminal: flag,
  /** What a paused container goes back to. */
  pausedFrom: z.optional(z.enum(["created", "running"])),
});

export type StateFile = z.infer<typeof stateFileSchema>;
export type Status = StateFile["status"] | "stopped";

/** exit.json, written by the sandbox when a container's init has ended. */
const exitFileSchema = z.object({
  version: formatVersion,
  /** As waitpid(2) gives it. */
  waitStatus: whole,
  oomKilled: flag,
  endedAt: text,
  /** Why, when it was not the process's own end: the VM or the sandbox failed. */
  reason: z.optional(text),
});
export type ExitFile = z.infer<typeof exitFileSchema>;

const ID_LIMIT = 1024;

/** runc's rule for ids; anything else could leave the root folder. */
export function checkId(id: string): void {
  if (id === "") throw new TskataError("invalid", "container id cannot be empty");
  if (id.length > ID_LIMIT || !/^[\w+.-]+$/.test(id) || id === "." || id === "..") {
    throw new TskataError("invalid", "invalid container ID format");
  }
}

/** Reads and checks a container's state; a missing one is runc's "container does not exist". */
export function readState(root: string, id: string): StateFile {
  checkId(id);
  const file = containerPaths(root, id).state;
  const text = readText(file);
  if (text === undefined) throw new TskataError("not-found", "container does not exist");
  const state = check(stateFileSchema, text, file);
  return state.boot === undefined || state.boot === bootId() ? state : afterReboot(state);
}

/** No process's start time. */
const NEVER = -1;

/** The host has been started anew: whoever has these pids now is someone else, and so is who is in cgroups of these names. */
function afterReboot(state: StateFile): StateFile {
  const { proxy, creator, pod } = state;
  return {
    ...state,
    creator: { ...creator, startTime: NEVER },
    ...(proxy === undefined ? {} : { proxy: { ...proxy, startTime: NEVER } }),
    pod: { ...pod, ...(pod.sandboxPid === undefined ? {} : { sandboxStartTime: NEVER }), cgroups: [] },
    cgroups: [],
    cgroupFolders: [],
  };
}

/** What the sandbox wrote at the container's end; undefined while it runs, or when the sandbox died before it could. */
export function readExit(state: StateFile): ExitFile | undefined {
  const file = exitPath(state);
  const text = readText(file);
  return text === undefined ? undefined : check(exitFileSchema, text, file);
}

/** In the pod's folder, because the sandbox will see no other. */
export function exitPath(state: Pick<StateFile, "id" | "pod">): string {
  return `${state.pod.folder}/exit-${state.id}.json`;
}

export function writeState(root: string, state: StateFile): void {
  const { state: file } = containerPaths(root, state.id);
  const draft = `${file}.${process.pid}`;
  try {
    writeFileSync(draft, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
    renameSync(draft, file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw new TskataError("internal", `write ${file}`, { cause: error });
  }
}

/** The status now: what the file says as long as the proxy lives. */
export function statusOf(state: StateFile): Status {
  if (state.status === "creating") return isAlive(state.creator) ? "creating" : "stopped";
  return isAlive(state.proxy) ? state.status : "stopped";
}

function readText(file: string): string | undefined {
  try {
    return readPodFile(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new TskataError("internal", `read ${file}`, { cause: error });
  }
}

function check<Schema extends z.ZodMiniType>(schema: Schema, text: string, file: string): z.infer<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TskataError("invalid", `${file} is damaged: ${(error as Error).message}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new TskataError("invalid", `${file} is damaged: ${sayIssues(result.error.issues, value)}`);
}
