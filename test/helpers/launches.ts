/**
 * A program: runs the guest's launcher without a guest. As process 1 of a pid namespace it takes launches as JSON on its stdin, runs each to its
 * end as the agent would, and prints how each ended. Containers have no cgroup of their own: that is the agent's part.
 */
import { openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { containerPlan, execPlan } from "../../agent/container/container-plan.ts";
import { encodePlan } from "../../agent/container/plan.ts";
import { Reaper } from "../../agent/init/reaper.ts";
import { native } from "../../src/native.ts";
import type { Process, Spec } from "../../src/oci/spec.ts";

export interface Launch {
  /** File for what it prints. */
  readonly output: string;
  readonly spec: Spec;
  /** Run in the namespaces of this very program, as an exec'ed process is in those of an init. */
  readonly exec?: Process;
}

export interface End {
  readonly printed: string;
  readonly waitStatus?: number;
  readonly error?: string;
}

const repository = join(import.meta.dirname, "../..");

async function run(launch: Launch, reaper: Reaper): Promise<End> {
  const { spec, exec, output } = launch;
  const plan =
    exec === undefined
      ? containerPlan({ id: "box", spec, cgroup: "", sharedPids: new Map(), noPivot: false, newKeyring: false, bundle: "/the/bundle" })
      : execPlan({ spec, process: exec, cgroup: "", subCgroup: "", init: process.pid });
  const file = openSync(output, "w");
  const goes = exec !== undefined;
  try {
    const { launched, exited } = await reaper.launching(async (exitOf) => {
      const made = await native().launch({ launcher: join(repository, "dist/guest/tskata-launcher"), plan: encodePlan(plan), stdio: [-1, file, file], goes });
      return { launched: made, exited: exitOf(made.pid) };
    });
    if (!goes) await launched.release();
    return { waitStatus: await exited, printed: readFileSync(output, "utf8") };
  } catch (error) {
    return { error: (error as Error).message, printed: readFileSync(output, "utf8") };
  }
}

const reaper = new Reaper();
reaper.start();
const ends: End[] = [];
for (const launch of JSON.parse(readFileSync(0, "utf8")) as Launch[]) ends.push(await run(launch, reaper));
console.log(JSON.stringify(ends));
process.exit(0);
