/** `tskata features`. */
import { features } from "../oci/features.ts";
import { print } from "./output.ts";
import type { Verb } from "./verb.ts";

export const verb: Verb = {
  name: "features",
  summary: "show the enabled features",
  synopsis: "",
  description: "Prints the runtime-spec's features document as JSON: what this build recognises, whatever the host.",
  flags: [],
  arguments: { least: 0, most: 0 },
  async run() {
    print(`${JSON.stringify(features(), null, 4)}\n`);
    return 0;
  },
};
