/** `tskata create`, and the flags it shares with `run`. */
import { TskataError } from "../base/errors.ts";
import { type CreateOptions, createContainer } from "../lifecycle/create.ts";
import { watchInterrupts } from "../lifecycle/interrupt.ts";
import type { FlagSpec } from "./flags.ts";
import { CONTAINER_ID_HELP, type Verb, type VerbContext } from "./verb.ts";

export const bundleFlags: readonly FlagSpec[] = [
  { name: "bundle", alias: "b", kind: "string", help: "path to the root of the bundle directory, defaults to the current directory" },
  {
    name: "console-socket",
    kind: "string",
    help: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal",
  },
  { name: "pid-file", kind: "string", help: "specify the file to write the process id to" },
  { name: "no-pivot", kind: "boolean", help: "do not use pivot root to jail process inside rootfs" },
  { name: "no-new-keyring", kind: "boolean", help: "do not create a new session keyring for the container" },
  {
    name: "preserve-fds",
    kind: "integer",
    default: "0",
    help: "taken for compatibility with runc; descriptors cannot enter a virtual machine, only 0 is possible",
  },
];

/** What the flags of `create` and `run` say. */
export function createOptions({ globals, flags, args, logger }: VerbContext): Omit<CreateOptions, "detach" | "interrupt"> {
  refusePreserveFds(flags.integer("preserve-fds"));
  return {
    id: args[0] ?? "",
    root: globals.root,
    bundle: flags.string("bundle") ?? ".",
    config: globals.config,
    systemdCgroup: globals.systemdCgroup,
    consoleSocket: flags.string("console-socket"),
    pidFile: flags.string("pid-file"),
    noPivot: flags.boolean("no-pivot"),
    noNewKeyring: flags.boolean("no-new-keyring"),
    logger,
  };
}

export function refusePreserveFds(count: number | undefined): void {
  if ((count ?? 0) > 0) throw new TskataError("unsupported", "--preserve-fds is not supported: a descriptor of this host cannot enter the virtual machine");
}

export const verb: Verb = {
  name: "create",
  summary: "create a container",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Creates a container from a bundle: boots its virtual machine (or enters its pod's), prepares the container there, and
waits with its program until "start". The bundle holds config.json and the root filesystem.`,
  flags: bundleFlags,
  arguments: { least: 1, most: 1 },
  failure: "runtime create failed",
  async run(context) {
    using interrupt = watchInterrupts();
    const { proxy } = await createContainer({ ...createOptions(context), detach: true, interrupt });
    proxy.unref();
    return 0;
  },
};
