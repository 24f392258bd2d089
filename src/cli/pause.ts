/** `tskata pause`. */
import { pauseContainer } from "../lifecycle/container.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "pause",
  summary: "suspend all processes inside the container",
  synopsis: "<container-id>",
  description: CONTAINER_ID_HELP,
  flags: [],
  arguments: { least: 1, most: 1 },
  async run({ globals, args }) {
    await pauseContainer(globals.root, args[0] ?? "");
    return 0;
  },
};
