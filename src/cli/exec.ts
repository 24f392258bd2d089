/** `tskata exec`. */
import { TskataError } from "../base/errors.ts";
import { readContainerSpec, withPod } from "../lifecycle/container.ts";
import { execInContainer } from "../lifecycle/exec.ts";
import { attend, lossReason, terminalSize } from "../lifecycle/foreground.ts";
import { watchInterrupts } from "../lifecycle/interrupt.ts";
import { checkProcess, readProcessFile } from "../oci/bundle.ts";
import type { Capabilities, Process, User } from "../oci/spec.ts";
import { readState } from "../oci/state-file.ts";
import { refusePreserveFds } from "./create.ts";
import type { Flags } from "./flags.ts";
import { UsageError } from "./usage-error.ts";
import { CONTAINER_ID_HELP, type Verb, type VerbContext } from "./verb.ts";

/** runc's exit code when the process could not be started. */
const EXEC_FAILED = 255;

export const verb: Verb = {
  name: "exec",
  summary: "execute new process inside the container",
  synopsis: "<container-id> <command> [command options]  || -p process.json <container-id>",
  description: `${CONTAINER_ID_HELP}

Runs the command with the container's own environment, user and capabilities where no flag says otherwise.`,
  flags: [
    {
      name: "console-socket",
      kind: "string",
      help: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal",
    },
    { name: "cwd", kind: "string", help: "current working directory in the container" },
    { name: "env", alias: "e", kind: "strings", help: "set environment variables" },
    { name: "tty", alias: "t", kind: "boolean", help: "allocate a pseudo-TTY" },
    { name: "user", alias: "u", kind: "string", help: "UID or name of the container's (format: <user>[:<group>])" },
    { name: "additional-gids", alias: "g", kind: "strings", help: "additional gids" },
    { name: "process", alias: "p", kind: "string", help: "path to the process.json" },
    { name: "detach", alias: "d", kind: "boolean", help: "detach from the container's process" },
    { name: "pid-file", kind: "string", help: "specify the file to write the process id to" },
    { name: "process-label", kind: "string", help: "taken for compatibility with runc; the guest has no SELinux" },
    { name: "apparmor", kind: "string", help: "taken for compatibility with runc; the guest has no AppArmor" },
    { name: "no-new-privs", kind: "boolean", help: "set the no new privileges value for the process" },
    { name: "cap", alias: "c", kind: "strings", help: "add a capability to the bounding set for the process" },
    { name: "preserve-fds", kind: "integer", default: "0", help: "taken for compatibility with runc; only 0 is possible" },
    { name: "cgroup", kind: "strings", help: "run the process in an (existing) sub-cgroup of the container's" },
    { name: "ignore-paused", kind: "boolean", help: "allow exec in a paused container" },
  ],
  arguments: { least: 1, most: Number.MAX_SAFE_INTEGER },
  stopAtArgument: true,
  failure: "exec failed",
  failureCode: EXEC_FAILED,
  async run(context) {
    const { globals, flags, args, logger } = context;
    const id = args[0] ?? "";
    refusePreserveFds(flags.integer("preserve-fds"));
    const detach = flags.boolean("detach");
    const process = execProcess(context, id);
    using interrupt = watchInterrupts();
    const { state, execId, proxy } = await execInContainer({
      root: globals.root,
      id,
      process,
      consoleSocket: flags.string("console-socket"),
      detach,
      pidFile: flags.string("pid-file"),
      subCgroup: (flags.strings("cgroup").at(-1) ?? "").replace(/^[^/]*:/, ""),
      ignorePaused: flags.boolean("ignore-paused"),
      interrupt,
    });
    if (detach) {
      proxy.unref();
      return 0;
    }
    const resize = async (rows: number, columns: number): Promise<void> =>
      await withPod(state, async (client) => await client.resize({ containerId: id, execId, rows, columns }));
    const { code, signal } = await attend({ proxy, terminal: process.terminal ?? false, resize });
    const loss = signal === "SIGKILL" ? lossReason(state) : undefined;
    if (loss !== undefined) logger.error(`exec in container ${id} was lost: ${loss}`);
    return code;
  },
};

function execProcess({ globals, flags, args }: VerbContext, id: string): Process {
  const file = flags.string("process");
  if (file === undefined && args.length < 2) throw new UsageError('tskata: "exec" requires a minimum of 2 argument(s)', ".");
  readState(globals.root, id); // "does not exist" before anything else
  const process = file === undefined ? commandProcess(flags, args.slice(1), readContainerSpec(globals.root, id).process) : checkProcess(readProcessFile(file));
  const size = process.terminal === true && flags.string("console-socket") === undefined ? terminalSize() : undefined;
  return size === undefined || process.consoleSize !== undefined ? process : { ...process, consoleSize: size };
}

/** The container's own process with other arguments, and what the flags change. */
function commandProcess(flags: Flags, args: string[], base: Process | undefined): Process {
  if (base === undefined) throw new TskataError("invalid", "process property must not be empty");
  const { consoleSize: _size, ...rest } = base;
  return {
    ...rest,
    args,
    terminal: flags.boolean("tty"),
    cwd: flags.string("cwd") ?? base.cwd,
    env: [...(base.env ?? []), ...flags.strings("env")],
    user: userOf(flags, base.user ?? {}),
    ...(flags.boolean("no-new-privs") ? { noNewPrivileges: true } : {}),
    ...(flags.strings("cap").length === 0 ? {} : { capabilities: withCapabilities(base.capabilities ?? {}, flags.strings("cap")) }),
  };
}

function userOf(flags: Flags, base: User): User {
  const named = flags.string("user");
  const extra = flags
    .strings("additional-gids")
    .flatMap((list) => list.split(","))
    .map(gidOf);
  const additionalGids = [...(base.additionalGids ?? []), ...extra];
  if (named === undefined) return { ...base, additionalGids };
  const numbers = /^(\d+)(?::(\d+))?$/.exec(named);
  if (numbers === null) return { additionalGids, username: named };
  return { ...base, uid: Number(numbers[1]), gid: numbers[2] === undefined ? (base.gid ?? 0) : Number(numbers[2]), additionalGids };
}

function gidOf(text: string): number {
  if (!/^\d+$/.test(text)) throw new TskataError("invalid", `additional gid "${text}" is no number`);
  return Number(text);
}

/** As runc: never into the inheritable set, and into the ambient one if there is an inheritable one; of those the kernel raises what is in both. */
function withCapabilities(base: Capabilities, added: readonly string[]): Capabilities {
  const merge = (list: readonly string[] = []): string[] => [...new Set([...list, ...added])];
  const ambient = base.inheritable === undefined ? base.ambient : merge(base.ambient);
  return { ...base, bounding: merge(base.bounding), effective: merge(base.effective), permitted: merge(base.permitted), ambient };
}
