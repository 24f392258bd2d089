/** `tskata timeline`. */
import { writeFileSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { podPaths } from "../base/paths.ts";
import { readState } from "../oci/state-file.ts";
import type { Span } from "../telemetry/spans.ts";
import { drawSvg, drawText, readSpans, spansOf } from "../telemetry/timeline.ts";
import { print } from "./output.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

const DEFAULT_WIDTH = 100;
const VERBS = ["create", "start", "exec", "kill"];

export const verb: Verb = {
  name: "timeline",
  summary: "show where the time of a pod's start, or of another call, went",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Draws the spans of the start of the container's pod: what the command line, the sandbox process and the guest did when,
on one clock. With --svg, as a drawing. With --verb, the last call of that verb.`,
  flags: [
    { name: "verb", kind: "string", default: "create", help: "select one of: create, start, exec or kill" },
    { name: "svg", kind: "string", help: "write an SVG drawing to this file ('-': standard output)" },
    { name: "json", kind: "boolean", help: "print the spans as JSON, times in nanoseconds from the first one's start" },
  ],
  arguments: { least: 1, most: 1 },
  async run({ globals, flags, args }) {
    const state = readState(globals.root, args[0] ?? "");
    const verb = flags.string("verb") ?? "create";
    if (!VERBS.includes(verb)) throw new TskataError("invalid", `invalid value "${verb}" for --verb: expected one of ${VERBS.join(", ")}`);
    const spans = spansOf(verb, load(podPaths(state.pod.folder).spans, state.id));
    const title = `${verb === "create" ? "Start" : `Last ${verb}`} of ${state.pod.id}`;
    const svg = flags.string("svg");
    if (flags.boolean("json")) print(json(spans));
    else if (svg === "-") print(drawSvg(spans, title));
    else if (svg !== undefined) writeFileSync(svg, drawSvg(spans, title));
    else print(drawText(spans, Number(process.env["COLUMNS"]) || process.stdout.columns || DEFAULT_WIDTH));
    return 0;
  },
};

function load(file: string, id: string): Span[] {
  try {
    return readSpans(file);
  } catch (error) {
    throw new TskataError("not-found", `container ${id} has no spans`, { cause: error });
  }
}

function json(spans: readonly Span[]): string {
  const first = spans[0]?.startNs ?? 0n;
  const relative = spans.map(({ name, process, startNs, endNs }) => ({
    name,
    process,
    start: Number(startNs - first),
    end: Number(endNs - first),
  }));
  return `${JSON.stringify(relative)}\n`;
}
