/** `tskata state`. */

import { listedState } from "../oci/state.ts";
import { readState } from "../oci/state-file.ts";
import { print } from "./output.ts";
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
    const state = readState(globals.root, args[0] ?? "");
    print(JSON.stringify(listedState(state, ""), null, 2));
    return 0;
  },
};
