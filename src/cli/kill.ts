/** `tskata kill`. */
import { parseSignal } from "../base/signals.ts";
import { killContainer } from "../lifecycle/container.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "kill",
  summary: "send a signal (default: SIGTERM) to a container's init process",
  synopsis: "<container-id> [signal]",
  description: `${CONTAINER_ID_HELP}

The signal is a name ("KILL", "SIGKILL", "RTMIN+3") or a number.`,
  flags: [{ name: "all", alias: "a", kind: "boolean", help: "send the specified signal to all processes inside the container" }],
  arguments: { least: 1, most: 2 },
  async run({ globals, flags, args }) {
    await killContainer(globals.root, args[0] ?? "", { signal: parseSignal(args[1] ?? "SIGTERM"), all: flags.boolean("all") });
    return 0;
  },
};
