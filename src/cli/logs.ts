/** `tskata logs`. */
import { closeSync, existsSync, readSync, statSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import { podPaths } from "../base/paths.ts";
import { openPodFile } from "../base/pod-file.ts";
import { isAlive } from "../base/process.ts";
import { sandboxRef } from "../lifecycle/pods.ts";
import { readState, type StateFile } from "../oci/state-file.ts";
import type { Flags } from "./flags.ts";
import { print } from "./output.ts";
import { CONTAINER_ID_HELP, type Verb } from "./verb.ts";

const FOLLOW_MS = 200;
const CHUNK = 64 * 1024;

export const verb: Verb = {
  name: "logs",
  summary: "show the logs of a container's virtual machine",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Without a choice, all of them, each under a heading. What the container itself prints is not here: that goes to the
standard streams "create" was given.`,
  flags: [
    { name: "vm", kind: "boolean", help: "the sandbox process (JSON lines) and the hypervisor" },
    { name: "agent", kind: "boolean", help: "the agent in the guest: its lines of the console" },
    { name: "console", kind: "boolean", help: "the guest's console: kernel and agent" },
    { name: "follow", alias: "f", kind: "boolean", help: "go on until the pod ends" },
  ],
  arguments: { least: 1, most: 1 },
  async run({ globals, flags, args }) {
    const state = readState(globals.root, args[0] ?? "");
    const sources = chosen(flags, state);
    const tails = sources.map((source) => new Tail(source));
    for (const [index, tail] of tails.entries()) {
      if (tails.length > 1) print(`${index === 0 ? "" : "\n"}==> ${tail.source.heading} <==\n`);
      tail.printNew();
    }
    while (flags.boolean("follow") && isAlive(sandboxRef(state))) {
      await new Promise((wake) => setTimeout(wake, FOLLOW_MS));
      for (const tail of tails) tail.printNew();
    }
    return 0;
  },
};

interface Source {
  readonly heading: string;
  readonly file: string;
  readonly line?: (line: string) => boolean;
}

function chosen(flags: Flags, state: StateFile): Source[] {
  const pod = podPaths(state.pod.folder);
  const all = !flags.boolean("vm") && !flags.boolean("agent") && !flags.boolean("console");
  const sources: Source[] = [];
  if (all || flags.boolean("vm")) {
    sources.push({ heading: "sandbox", file: pod.sandboxLog }, { heading: "hypervisor", file: pod.hypervisorLog });
  }
  if (flags.boolean("agent")) sources.push({ heading: "agent", file: pod.consoleLog, line: isAgentLine });
  if (all || flags.boolean("console")) sources.push({ heading: "console", file: pod.consoleLog });
  const present = sources.filter((source) => existsSync(source.file));
  if (present.length === 0) throw new TskataError("not-found", `container ${state.id} has no such log yet`);
  return present;
}

/** The kernel's lines begin with its time stamp; everything else on the console is the agent's. */
function isAgentLine(line: string): boolean {
  return line.trim() !== "" && !/^\[ *\d+\.\d+\]/.test(line);
}

/** Prints a file as it grows, in whole lines when they are chosen one by one. */
class Tail {
  readonly source: Source;
  #offset = 0;
  #rest = "";

  constructor(source: Source) {
    this.source = source;
  }

  printNew(): void {
    const text = this.#read();
    const { line } = this.source;
    if (line === undefined) {
      print(text);
      return;
    }
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop() ?? "";
    print(
      lines
        .filter(line)
        .map((kept) => `${kept}\n`)
        .join(""),
    );
  }

  #read(): string {
    if (statSync(this.source.file).size <= this.#offset) return "";
    const fd = openPodFile(this.source.file);
    try {
      const parts: Buffer[] = [];
      for (;;) {
        const part = Buffer.alloc(CHUNK);
        const length = readSync(fd, part, 0, CHUNK, this.#offset);
        if (length === 0) return Buffer.concat(parts).toString("utf8");
        this.#offset += length;
        parts.push(part.subarray(0, length));
      }
    } finally {
      closeSync(fd);
    }
  }
}
