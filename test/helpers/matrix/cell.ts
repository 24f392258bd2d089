/** A cell of the matrix: something goes wrong, a remedy follows, and the host is as before. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Fault, VICTIMS, type Victim } from "../../../src/telemetry/fault.ts";
import { joinPod, startPod } from "../pod.ts";
import { describe, driver, type Outcome, type RunOptions, type Scratch, type Spec } from "../tskata.ts";
import { faultsOf, type MatrixVerb, VERBS } from "./points.ts";

export interface Cell {
  readonly name: string;
  /** Does it all but the last look at the host; gives what went wrong on the way. */
  run(scratch: Scratch, id: string): Promise<string[]>;
}

export const REMEDIES = ["delete", "gc"] as const;
export type Remedy = (typeof REMEDIES)[number];

/** No verb, whatever dies, takes longer than a start under emulation. */
const CALL_MS = 60_000;

const HOOKS = ["createRuntime", "poststart", "poststop"];

/** Every span's begin and end has a hook or a request to come from. */
function withHooks(spec: Spec): void {
  spec.hooks = Object.fromEntries(HOOKS.map((name) => [name, [{ path: "/bin/true" }]]));
}

/** A volume of the pod's own: it is placed by whoever has it first, and stays when that one leaves. */
function withOwnVolume(scratch: Scratch, spec: Spec): void {
  const source = join(scratch.folder, "volumes/kubernetes.io~empty-dir/cache");
  mkdirSync(source, { recursive: true });
  spec.mounts.push({ destination: "/cache", type: "bind", source, options: ["rbind"] });
}

export async function runCell(scratch: Scratch, cell: Cell, id: string): Promise<string[]> {
  const before = scratch.host();
  try {
    const problems = await cell.run(scratch, id);
    return [...problems, ...(await scratch.settledLeftovers(before)).map((one) => `left: ${one}`)];
  } catch (error) {
    await scratch.tskata(["gc"]);
    await scratch.tskata(["delete", "--force", id]);
    return [error instanceof Error ? error.message : String(error)];
  }
}

/** Calls tskata and tells of a call that does not end. */
export async function call(scratch: Scratch, problems: string[], args: string[], options: RunOptions = {}): Promise<Outcome> {
  const outcome = await scratch.tskata(args, { timeoutMs: CALL_MS, ...options });
  return judged(outcome, problems, args);
}

export async function create(
  scratch: Scratch,
  problems: string[],
  id: string,
  bundle: string,
  env: NodeJS.ProcessEnv = {},
  through: readonly string[] = [],
): Promise<Outcome> {
  const outcome = await scratch.tryCreate(id, bundle, [], env, { timeoutMs: CALL_MS, through });
  return judged(outcome, problems, ["create", id]);
}

function judged(outcome: Outcome, problems: string[], args: string[]): Outcome {
  if (outcome.timedOut) problems.push(`tskata ${args.join(" ")} did not end in ${CALL_MS / 1000} s`);
  return outcome;
}

/** What one does after a crash; a container that gc finds healthy is deleted as any other. */
export async function remedy(scratch: Scratch, problems: string[], how: Remedy, id: string): Promise<void> {
  if (how === "gc") {
    await must(scratch, problems, ["gc"]);
    if (!existsSync(join(scratch.root, id))) return;
    const { code, stderr } = await call(scratch, problems, ["state", id]);
    if (code !== 0) problems.push(`gc left a container whose state can't be told: ${stderr}`);
  }
  await must(scratch, problems, ["delete", "--force", id]);
}

export async function must(scratch: Scratch, problems: string[], args: string[], options: RunOptions = {}): Promise<void> {
  const outcome = await call(scratch, problems, args, options);
  if (outcome.code !== 0) problems.push(`tskata ${args.join(" ")}: ${describe(outcome)}`);
}

// -- kill -9 at a fault point -----------------------------------------------------------------------------------------------------------

/** The VMM of the kvm driver is threads of the sandbox process. */
function hasVictim(victim: Victim): boolean {
  return victim !== "hypervisor" || driver() !== "kvm";
}

export function faultText({ process, span, edge, victim }: Fault): string {
  return [process, span, edge, victim].join(":");
}

export function killCells(): Cell[] {
  return VERBS.flatMap((verb) => faultsOf(verb).flatMap((fault) => REMEDIES.map((how) => killCell(verb, fault, how)))).filter(
    (cell): cell is Cell => cell !== undefined,
  );
}

function killCell(verb: MatrixVerb, fault: Fault, how: Remedy): Cell | undefined {
  if (!VICTIMS.includes(fault.victim) || !hasVictim(fault.victim)) return undefined;
  return {
    name: `${verb}: kill -9 ${fault.victim} at ${fault.process} "${fault.span}" ${fault.edge}, then ${how}`,
    run: async (scratch, id) => {
      const problems: string[] = [];
      const outcome = await strike(scratch, problems, verb, fault, id);
      const point = `TSKATA_FAULT: ${fault.process}:${fault.span}:${fault.edge}`;
      const fired = outcome.stderr.includes(`${point}: kills ${fault.victim}`);
      // What `kill` has ended may have taken its proxy with it.
      const ended = verb === "kill" && fault.edge === "end" && outcome.stderr.includes(`${point}: there is no proxy`);
      if (!fired && !ended) problems.push(`the fault point was not reached, or its victim was not there: ${describe(outcome)}`);
      await remedy(scratch, problems, how, id);
      if (verb === "join" || verb === "leave") await remedy(scratch, problems, "delete", `${id}-pod`);
      return problems;
    },
  };
}

/** Gets the container to where the verb is possible, and calls that with the fault. */
async function strike(scratch: Scratch, problems: string[], verb: MatrixVerb, fault: Fault, id: string): Promise<Outcome> {
  const env = { TSKATA_FAULT: faultText(fault) };
  // The sandbox process has the environment of the command that made it.
  const early = fault.process === "sandbox" ? env : {};
  const pod = verb === "join" || verb === "leave" ? `${id}-pod` : undefined;
  if (pod !== undefined) await startPod(scratch, pod, () => {}, early);
  const joinIt = pod === undefined ? (): void => {} : await joinPod(scratch, pod);
  const bundle = await scratch.sharedBundle((spec) => {
    withHooks(spec);
    withOwnVolume(scratch, spec);
    joinIt(spec);
  });
  if (verb === "create" || verb === "join") return await create(scratch, problems, id, bundle, env);
  await scratch.create(id, bundle, [], early);
  if (verb === "start") return await call(scratch, problems, ["start", id], { env });
  await scratch.ok(["start", id]);
  if (verb === "exec") return await call(scratch, problems, ["exec", id, "true"], { env });
  if (verb === "kill") return await call(scratch, problems, ["kill", id, "KILL"], { env });
  return await call(scratch, problems, ["delete", "--force", id], { env });
}
