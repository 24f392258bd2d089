/** `tskata state`. */
import { print } from "./output.ts";
import { stateText } from "./state-text.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "state",
  summary: "output the state of a container",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Prints the state as JSON, as runc does. A container that its memory limit ended has the annotation
io.tskata.oom-killed; one whose virtual machine died has io.tskata.stop-reason.`,
  flags: [],
  arguments: { least: 1, most: 1 },
  async run({ globals, args }) {
    print(stateText(globals, args[0] ?? ""));
    return 0;
  },
};
