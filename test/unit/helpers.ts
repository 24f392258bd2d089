/** What unit tests share: temporary folders, programs run to their end, and a container's state made up. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { ExecutionContext, ThrowsExpectation } from "ava";
import { type ErrorCode, TskataError } from "../../src/base/errors.ts";
import { processRef } from "../../src/base/process.ts";
import { type StateFile, writeState } from "../../src/oci/state-file.ts";

export const repository = resolve(import.meta.dirname, "../..");

/** Removed at the end of the test. */
export function temporaryFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), "tskata-unit-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds; then it is killed. */
  readonly timeout?: number;
}

export async function runProgram(program: string, args: readonly string[], options: ProgramOptions = {}): Promise<Outcome> {
  const child = spawn(program, args, { ...options, killSignal: "SIGKILL", stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (part: string) => (stdout += part));
  child.stderr.setEncoding("utf8").on("data", (part: string) => (stderr += part));
  return await new Promise((done, fail) => {
    child.once("error", fail);
    child.once("close", (code) => done({ code, stdout, stderr }));
  });
}

/** The command line from its sources. */
export async function tskata(...args: string[]): Promise<Outcome> {
  return await runProgram(process.execPath, [join(repository, "src/cli/main.ts"), ...args]);
}

/** Several command lines one after the other in one process: most of a call's time is node's start. */
export async function tskataEach(calls: readonly (readonly string[])[]): Promise<Outcome[]> {
  const script = `const { runCommandLine } = await import(${JSON.stringify(join(repository, "src/cli/command-line.ts"))});
const { writeSync } = await import("node:fs");
for (const words of ${JSON.stringify(calls)}) {
  writeSync(1, "\\0" + await runCommandLine(words));
  for (const fd of [1, 2]) writeSync(fd, "\\0\\n");
}`;
  const { stdout, stderr } = await runProgram(process.execPath, ["--input-type=module", "-e", script]);
  const errors = stderr.split("\0\n");
  return stdout
    .split("\0\n")
    .slice(0, -1)
    .map((part, index) => {
      const [text = "", code] = part.split("\0");
      return { code: Number(code), stdout: text, stderr: errors[index] ?? "" };
    });
}

export async function runc(...args: string[]): Promise<Outcome> {
  return await runProgram("runc", args);
}

/** What `t.throws` expects of one of our errors. */
export function failure(code: ErrorCode, message: string | RegExp): ThrowsExpectation<TskataError> & { readonly code: ErrorCode } {
  return { instanceOf: TskataError, code, message };
}

/** A container whose proxy is this very process: it runs. */
export function stateOf(root: string, changes: Partial<StateFile> = {}): StateFile {
  const self = processRef(process.pid);
  const id = changes.id ?? "box";
  return {
    version: 1,
    id,
    ociVersion: "1.2.0",
    bundle: "/bundles/box",
    rootfs: "/bundles/box/rootfs",
    annotations: {},
    created: "2026-01-02T03:04:05.123456789Z",
    owner: 0,
    status: "running",
    creator: self ?? { pid: 1, startTime: 0 },
    proxy: self,
    pod: { id, folder: join(root, id, "pod"), cgroups: [] },
    cgroups: [],
    cgroupFolders: [],
    sharedTargets: [],
    terminal: false,
    ...changes,
  };
}

/** Writes it where the command line looks for it. */
export function storeState(root: string, state: StateFile): void {
  mkdirSync(join(root, state.id, "pod"), { recursive: true });
  writeState(root, state);
}

/** A bundle folder with an empty root filesystem and this config.json. */
export function writeBundle(folder: string, config: unknown): string {
  mkdirSync(join(folder, "rootfs"), { recursive: true });
  writeFileSync(join(folder, "config.json"), typeof config === "string" ? config : JSON.stringify(config));
  return folder;
}
