/** `tskata gc`. */
import { collect } from "../lifecycle/collect.ts";
import { print } from "./output.ts";
import type { Verb } from "./verb.ts";

export const verb: Verb = {
  name: "gc",
  summary: "find and remove what crashes have left",
  synopsis: "",
  description: `Looks below the global option --root for containers whose virtual machine or stand-in process died and creates that were
cut short, and removes them with all that is theirs: processes, cgroups, folders. Healthy containers are left alone.`,
  flags: [{ name: "dry-run", alias: "n", kind: "boolean", help: "only tell" }],
  arguments: { least: 0, most: 0 },
  async run({ globals, flags, logger }) {
    const tell = ({ what, name, why }: { what: string; name: string; why: string }): void => print(`${what} ${name}: ${why}\n`);
    await collect(globals.root, flags.boolean("dry-run"), tell, (message) => logger.warning(message));
    return 0;
  },
};
