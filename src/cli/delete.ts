/** `tskata delete`. */
import { removeContainer } from "../lifecycle/remove.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "delete",
  summary: "delete any resources held by the container",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

With a pod's last container its virtual machine goes, too.`,
  flags: [{ name: "force", alias: "f", kind: "boolean", help: "forcibly deletes the container if it is still running (uses SIGKILL)" }],
  arguments: { least: 1, most: 1 },
  async run({ globals, flags, args, logger }) {
    await removeContainer({ root: globals.root, id: args[0] ?? "", force: flags.boolean("force"), warn: (message) => logger.warning(message) });
    return 0;
  },
};
