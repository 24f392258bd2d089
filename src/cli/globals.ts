/** The global flags, before the verb, as runc's. */
import { accessSync, appendFileSync, constants, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { TskataError } from "../base/errors.ts";
import { DEFAULT_CONFIG, DEFAULT_ROOT } from "../base/paths.ts";
import { Logger } from "../telemetry/logger.ts";
import type { FlagSpec, Flags } from "./flags.ts";
import type { Globals } from "./verb.ts";

export const globalFlags: readonly FlagSpec[] = [
  { name: "debug", kind: "boolean", help: "enable debug logging" },
  { name: "log", kind: "string", help: "set the log file to write logs to (default is '/dev/stderr')" },
  { name: "log-format", kind: "string", default: "text", help: "set the log format ('text' or 'json')" },
  { name: "root", kind: "string", default: DEFAULT_ROOT, help: "root directory for storage of container state (this should be located in tmpfs)" },
  { name: "config", kind: "string", help: `configuration file (default: TSKATA_CONFIG, or ${DEFAULT_CONFIG} if it exists)` },
  { name: "criu", kind: "string", help: "taken for compatibility with runc; there is no checkpoint" },
  { name: "systemd-cgroup", kind: "boolean", help: 'expects cgroupsPath of the form "slice:prefix:name", for example "system.slice:tskata:434234"' },
  { name: "rootless", kind: "string", default: "auto", help: "'true' is refused: tskata needs root on the host" },
  { name: "help", alias: "h", kind: "boolean", help: "show help" },
  { name: "version", alias: "v", kind: "boolean", help: "print the version" },
];

export function readGlobals(flags: Flags): Globals {
  const rootless = flags.string("rootless");
  if (rootless === "true") throw new TskataError("unsupported", "rootless containers are not supported: run tskata as root");
  if (rootless !== "false" && rootless !== "auto") {
    throw new TskataError("invalid", `invalid value "${rootless ?? ""}" for --rootless: expected true, false or auto`);
  }
  return {
    root: realPath(resolve(flags.string("root") ?? DEFAULT_ROOT)),
    systemdCgroup: flags.boolean("systemd-cgroup"),
    debug: flags.boolean("debug"),
    config: flags.string("config"),
  };
}

/**
 * Without symbolic links: a pod's processes have its folder in a root of their own, which has none of the host's links. Docker's root is below
 * /var/run, which is one. The last parts may not be there yet.
 */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    const parent = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || parent === path) return path; // whoever uses it says what is wrong with it
    return join(realPath(parent), basename(path));
  }
}

/** The log the global flags ask for; a file that can't be written is an error now, not at the first line. */
export function openLogger(flags: Flags): Logger {
  const format = flags.string("log-format") ?? "text";
  if (format !== "text" && format !== "json") throw new TskataError("invalid", `invalid log-format: ${format}`);
  const named = flags.string("log");
  const file = named === "/dev/stderr" ? undefined : named;
  if (file !== undefined) checkWritable(file);
  return new Logger({ file, format, level: flags.boolean("debug") ? "debug" : "info" });
}

function checkWritable(file: string): void {
  try {
    appendFileSync(file, "");
    accessSync(file, constants.W_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new TskataError("invalid", `open ${file}: ${code === "ENOENT" ? "no such file or directory" : (code ?? String(error))}`);
  }
}
