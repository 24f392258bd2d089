/** A container whose terminal goes over a console socket, as engines ask for it. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { buildFixture } from "./fixtures.ts";
import { describe, outcomeOf, type Scratch } from "./tskata.ts";
import { until } from "./waits.ts";

/** Creates, starts and deletes it; what it has written to its terminal, its lines ending as those of files. */
export async function onTerminal(t: ExecutionContext, scratch: Scratch, id: string, bundle: string): Promise<string> {
  const program = join(scratch.folder, "console");
  if (!existsSync(program)) buildFixture("console", program);
  const socket = join(scratch.folder, `${id}.sock`);
  const engine = spawn(program, [socket], { stdio: ["ignore", "pipe", "pipe"] });
  t.teardown(() => void engine.kill("SIGKILL"));
  const ended = outcomeOf(engine, {});
  await until(() => existsSync(socket), "the console socket");
  await scratch.create(id, bundle, ["--console-socket", socket]);
  await scratch.ok(["start", id]);
  const outcome = await ended;
  t.is(outcome.code, 0, describe(outcome));
  await scratch.until(id, "stopped");
  await scratch.ok(["delete", id]);
  return outcome.stdout.replaceAll("\r\n", "\n");
}
