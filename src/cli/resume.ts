/** `tskata resume`. */
import { resumeContainer } from "../lifecycle/container.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "resume",
  summary: "resume all processes that have been previously paused",
  synopsis: "<container-id>",
  description: CONTAINER_ID_HELP,
  flags: [],
  arguments: { least: 1, most: 1 },
  async run({ globals, args }) {
    await resumeContainer(globals.root, args[0] ?? "");
    return 0;
  },
};
