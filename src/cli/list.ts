/** `tskata list`. */
import { readFileSync } from "node:fs";
import { errorChain, TskataError } from "../base/errors.ts";
import { readStates } from "../lifecycle/pods.ts";
import { type ListedState, listedState } from "../oci/state.ts";
import type { StateFile } from "../oci/state-file.ts";
import { print, table } from "./output.ts";
import type { Verb } from "./verb.ts";

export const verb: Verb = {
  name: "list",
  summary: "list the containers of a root folder",
  synopsis: "",
  description: "Lists the containers below the global option --root.",
  flags: [
    { name: "format", alias: "f", kind: "string", default: "table", help: "select one of: table or json" },
    { name: "quiet", alias: "q", kind: "boolean", help: "display only container IDs" },
  ],
  arguments: { least: 0, most: 0 },
  async run({ globals, flags, logger }) {
    const states = readStates(globals.root, (id, error) => logger.error(`load container ${id}: ${errorChain(error)}`));
    const format = flags.string("format");
    if (flags.boolean("quiet")) print(states.map((state) => `${state.id}\n`).join(""));
    else if (format === "table") print(stateTable(states.map(listed)));
    else if (format === "json") print(`${states.length === 0 ? "null" : JSON.stringify(states.map(listed))}\n`);
    else throw new TskataError("invalid", "invalid format option");
    return 0;
  },
};

function listed(state: StateFile): ListedState {
  return listedState(state, userName(state.owner));
}

function userName(uid: number): string {
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((entry) => entry.split(":")[2] === String(uid));
  return line?.split(":")[0] ?? `#${uid}`;
}

function stateTable(states: readonly ListedState[]): string {
  const rows = states.map(({ id, pid, status, bundle, created, owner }) => [id, String(pid), status, bundle, created, owner]);
  return table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], ...rows]);
}
