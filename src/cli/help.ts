/** Help texts: of the program and of a verb, laid out as runc's. Loaded only when they are shown. */

import { version } from "../base/version.ts";
import type { FlagSpec } from "./flags.ts";
import { globalFlags } from "./globals.ts";
import type { Verb } from "./verb.ts";
import { verbs } from "./verbs.ts";

export function verbHelp(verb: Verb): string {
  const options = verb.flags.length === 0 ? "" : `\nOPTIONS:\n${flagLines(verb.flags)}\n`;
  const usage = `   tskata ${verb.name}${verb.flags.length === 0 ? "" : " [command options]"} ${verb.synopsis}`.trimEnd();
  return `NAME:
   tskata ${verb.name} - ${verb.summary}

USAGE:
${usage}

DESCRIPTION:
   ${verb.description
     .trim()
     .replaceAll("\n", "\n   ")
     .replaceAll(/\n +\n/g, "\n\n")}
${options}`;
}

export async function programHelp(): Promise<string> {
  const lines: [string, string][] = [];
  for (const load of Object.values(verbs)) {
    const verb = await load();
    lines.push([verb.name, verb.summary]);
  }
  lines.push(["help", "show this, or the help of one command"]);
  return `NAME:
   tskata - a container runtime that gives every pod its own virtual machine

tskata takes the command line of runc: Docker, containerd, podman and CRI-O can use it in runc's place.

USAGE:
   tskata [global options] command [command options] [arguments...]

VERSION:
   ${version().replaceAll("\n", "\n   ")}

COMMANDS:
${columns(lines)}

GLOBAL OPTIONS:
${flagLines(globalFlags)}
`;
}

function flagLines(flags: readonly FlagSpec[]): string {
  return columns(flags.map((flag) => [flagNames(flag), flag.help + (flag.default === undefined ? "" : ` (default: ${flag.default})`)]));
}

function flagNames(flag: FlagSpec): string {
  const value = flag.kind === "boolean" ? "" : " value";
  return [`--${flag.name}${value}`, ...(flag.alias === undefined ? [] : [`-${flag.alias}${value}`])].join(", ");
}

function columns(lines: readonly (readonly [string, string])[]): string {
  const width = Math.max(...lines.map(([left]) => left.length)) + 2;
  return lines.map(([left, right]) => `   ${left.padEnd(width)}${right}`).join("\n");
}
