/** `tskata ps`. */
import { TskataError } from "../base/errors.ts";
import { notRunning, withPod } from "../lifecycle/container.ts";
import { readState, statusOf } from "../oci/state-file.ts";
import { print, printable, table } from "./output.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

export const verb: Verb = {
  name: "ps",
  summary: "display the processes running inside a container",
  synopsis: "<container-id> [ps options]",
  description: `${CONTAINER_ID_HELP}

The table shows the guest's processes with their pids in the container; "ps options" are ignored. As JSON: the pids of
those that have a process standing for them on this host, which is what engines look up.`,
  flags: [{ name: "format", alias: "f", kind: "string", default: "table", help: "select one of: table or json" }],
  arguments: { least: 1, most: Number.MAX_SAFE_INTEGER },
  stopAtArgument: true,
  async run({ globals, flags, args }) {
    const format = flags.string("format");
    if (format !== "table" && format !== "json") throw new TskataError("invalid", "invalid format option");
    const id = args[0] ?? "";
    const state = readState(globals.root, id);
    if (statusOf(state) === "stopped") throw notRunning();
    const { processes } = await withPod(state, async (client) => await client.processes({ containerId: id }));
    if (format === "json") {
      print(JSON.stringify(processes.map(({ hostPid }) => hostPid).filter((pid) => pid > 0)));
      return 0;
    }
    const guestPids = new Map(processes.map(({ guestPid, pid }) => [guestPid, pid]));
    const rows = processes.map(({ uid, pid, parent, command }) => [String(uid), String(pid), String(guestPids.get(parent) ?? 0), printable(command)]);
    print(table([["UID", "PID", "PPID", "CMD"], ...rows]));
    return 0;
  },
};
