/** OCI hooks on the host (config.md "POSIX-platform Hooks"): run in order, the state on stdin, their timeouts kept. */
import { type ChildProcess, spawn } from "node:child_process";
import { TskataError } from "../base/errors.ts";
import type { Hook } from "./spec.ts";
import type { OciState } from "./state.ts";

/** Output kept for the error message. */
const OUTPUT_LIMIT = 4096;
/** A hook may leave a background child holding its output open; its own exit is what counts. */
const DRAIN_MS = 250;

/** Runs every hook of a list; the first that fails stops it. */
export async function runHooks(hooks: readonly Hook[] | undefined, state: OciState, cwd: string): Promise<void> {
  for (const [index, hook] of (hooks ?? []).entries()) {
    try {
      await runHook(hook, state, cwd);
    } catch (error) {
      throw new TskataError("launch", `error running hook #${index}: ${(error as Error).message}`);
    }
  }
}

/** Runs every hook and goes on after a failure, which `warn` is told (poststart and poststop). */
export async function runHooksLeniently(hooks: readonly Hook[] | undefined, state: OciState, cwd: string, warn: (message: string) => void): Promise<void> {
  for (const [index, hook] of (hooks ?? []).entries()) {
    try {
      await runHook(hook, state, cwd);
    } catch (error) {
      warn(`error running hook #${index}: ${(error as Error).message}`);
    }
  }
}

async function runHook(hook: Hook, state: OciState, cwd: string): Promise<void> {
  const [argv0 = hook.path, ...args] = hook.args ?? [];
  const child = spawn(hook.path, args, { argv0, cwd, env: environment(hook.env), stdio: "pipe", detached: true });
  const output = { stdout: collect(child, "stdout"), stderr: collect(child, "stderr") };
  child.stdin?.on("error", () => {}); // a hook need not read its stdin
  child.stdin?.end(JSON.stringify(state));
  const outcome = await ended(child, hook);
  if (outcome !== undefined) {
    throw new Error(`error running hook: ${outcome}, stdout: ${output.stdout()}, stderr: ${output.stderr()}`);
  }
}

/** Undefined when it exited with 0, else how it ended as Go says it. Rejects when it could not start or ran too long. */
async function ended(child: ChildProcess, hook: Hook): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<string | undefined>((done, fail) => {
      child.once("error", (error: NodeJS.ErrnoException) => fail(new Error(`fork/exec ${hook.path}: ${sayErrno(error)}`)));
      child.once("exit", (code, signal) => {
        clearTimeout(timer);
        const outcome = code === 0 ? undefined : code === null ? `signal: ${signal}` : `exit status ${code}`;
        const drained = setTimeout(() => done(outcome), DRAIN_MS);
        child.once("close", () => {
          clearTimeout(drained);
          done(outcome);
        });
      });
      if (hook.timeout !== undefined) {
        timer = setTimeout(() => {
          killGroup(child);
          fail(new Error(`hook ran past specified timeout of ${hook.timeout?.toFixed(1)}s`));
        }, hook.timeout * 1000);
      }
    });
  } finally {
    clearTimeout(timer);
    child.stdout?.destroy();
    child.stderr?.destroy();
  }
}

/** A hook that is a shell script must not leave its children running after its time is over: it leads a group of its own. */
function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has just ended by itself.
  }
}

function collect(child: ChildProcess, name: "stdout" | "stderr"): () => string {
  let text = "";
  child[name]?.on("data", (part: Buffer) => {
    if (text.length < OUTPUT_LIMIT) text = (text + part.toString()).slice(0, OUTPUT_LIMIT);
  });
  return () => text;
}

/** `env` is the whole environment of the hook: nothing of ours is added. */
function environment(entries: readonly string[] = []): NodeJS.ProcessEnv {
  return Object.fromEntries(
    entries.map((entry) => {
      const at = entry.indexOf("=");
      return at < 0 ? [entry, ""] : [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}

function sayErrno(error: NodeJS.ErrnoException): string {
  if (error.code === "ENOENT") return "no such file or directory";
  if (error.code === "EACCES") return "permission denied";
  return error.code ?? error.message;
}
