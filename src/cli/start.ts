/** `tskata start`. */
import { startContainer } from "../lifecycle/container.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "start",
  summary: "execute the user defined process in a created container",
  synopsis: "<container-id>",
  description: CONTAINER_ID_HELP,
  flags: [],
  arguments: { least: 1, most: 1 },
  async run({ globals, args, logger }) {
    await startContainer(globals.root, args[0] ?? "", (message) => logger.warning(message));
    return 0;
  },
};
