/** `tskata spec`. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TskataError } from "../base/errors.ts";
import { specTemplate } from "../oci/spec-template.ts";
import type { Verb } from "./verb.ts";

export const verb: Verb = {
  name: "spec",
  summary: "create a new specification file",
  synopsis: "",
  description: `Writes a starter config.json for the bundle. It runs "sh"; edit process.args to run something else.

    mkdir -p bundle/rootfs && cd bundle
    (fill rootfs with a root filesystem)
    tskata spec
    tskata run my-container`,
  flags: [
    { name: "bundle", alias: "b", kind: "string", help: "path to the root of the bundle directory, defaults to the current directory" },
    { name: "rootless", kind: "boolean", help: "add a user namespace that maps the container's root to this user" },
  ],
  arguments: { least: 0, most: 0 },
  async run({ flags }) {
    const file = join(flags.string("bundle") ?? ".", "config.json");
    if (existsSync(file)) throw new TskataError("exists", `File ${file} exists. Remove it first`);
    const spec = specTemplate({ rootless: flags.boolean("rootless"), uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 });
    writeFileSync(file, `${JSON.stringify(spec, null, "\t")}\n`, { mode: 0o666 });
    return 0;
  },
};
