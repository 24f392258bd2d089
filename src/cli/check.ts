/** `tskata check`. */
import { TskataError } from "../base/errors.ts";
import { loadConfig } from "../config/config.ts";
import { canRun, checkHost, type Finding } from "../host/check.ts";
import { print } from "./output.ts";
import type { Verb } from "./verb.ts";

const MARKS: Record<Finding["status"], string> = { ok: "ok", slow: "slow", missing: "MISSING" };

export const verb: Verb = {
  name: "check",
  summary: "tell what this host can do and which hypervisor driver is used",
  synopsis: "",
  description: "Exits with 0 if containers can run here, with 1 if something is missing.",
  flags: [{ name: "format", alias: "f", kind: "string", default: "table", help: "select one of: table or json" }],
  arguments: { least: 0, most: 0 },
  async run({ globals, flags }) {
    const format = flags.string("format");
    if (format !== "table" && format !== "json") throw new TskataError("invalid", "invalid format option");
    const findings = await checkHost(loadConfig(globals.config));
    const able = canRun(findings);
    if (format === "json") print(`${JSON.stringify({ able, findings }, null, 2)}\n`);
    else print(`${findings.map(line).join("")}\n${able ? "Containers can run on this host." : "Containers cannot run on this host yet."}\n`);
    return able ? 0 : 1;
  },
};

function line({ name, status, detail }: Finding): string {
  return `${MARKS[status].padEnd(9)}${name.padEnd(14)}${detail}\n`;
}
