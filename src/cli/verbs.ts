/** The verbs by name. Each is loaded only when it is asked for: start-up time of `state` is start-up time of node. */
import type { Verb } from "./verb.ts";

type Load = () => Promise<Verb>;

export const verbs: Readonly<Record<string, Load>> = {
  create: async () => (await import("./create.ts")).verb,
  start: async () => (await import("./start.ts")).verb,
  run: async () => (await import("./run.ts")).verb,
  state: async () => (await import("./state.ts")).verb,
  kill: async () => (await import("./kill.ts")).verb,
  delete: async () => (await import("./delete.ts")).verb,
  exec: async () => (await import("./exec.ts")).verb,
  ps: async () => (await import("./ps.ts")).verb,
  list: async () => (await import("./list.ts")).verb,
  events: async () => (await import("./events.ts")).verb,
  update: async () => (await import("./update.ts")).verb,
  pause: async () => (await import("./pause.ts")).verb,
  resume: async () => (await import("./resume.ts")).verb,
  features: async () => (await import("./features.ts")).verb,
  spec: async () => (await import("./spec.ts")).verb,
  check: async () => (await import("./check.ts")).verb,
  logs: async () => (await import("./logs.ts")).verb,
  timeline: async () => (await import("./timeline.ts")).verb,
  gc: async () => (await import("./gc.ts")).verb,
};

export async function loadVerb(name: string): Promise<Verb | undefined> {
  return Object.hasOwn(verbs, name) ? await verbs[name]?.() : undefined;
}
