/** Entry point of a pod's sandbox process: its working folder is the pod's, descriptor 3 takes one line that says how the start went. */
import { closeSync, readFileSync, writeSync } from "node:fs";
import { errorChain } from "../base/errors.ts";
import { FailureError, shortage } from "../base/failures.ts";
import { parsePodConfig } from "../control/pod-config.ts";
import { native } from "../native.ts";
import { failedPhase } from "../telemetry/spans.ts";
import { openLog } from "./log.ts";
import { Sandbox } from "./sandbox.ts";

const READY_FD = 3;

function tell(answer: object): void {
  try {
    writeSync(READY_FD, `${JSON.stringify(answer)}\n`);
  } catch {
    // The command line has gone; the pod ends with its container's deletion.
  }
  closeSync(READY_FD);
}

/** What the command line makes a whole explanation of: it has the logs, and the host's side of it. */
function describeFailure(error: unknown): object {
  const code = shortage(error) ?? (error instanceof FailureError ? error.failure : "hypervisor-failed");
  const machine = error instanceof FailureError ? error.machine : undefined;
  return { failure: code, message: errorChain(error), machine, phase: failedPhase(error) };
}

async function main(): Promise<void> {
  process.title = "tskata-sandbox";
  const config = parsePodConfig(readFileSync("config.json", "utf8"));
  const log = openLog(config.logLevel);
  process.on("uncaughtException", (error) => log.error({ error: error.stack }, "uncaught exception"));
  process.on("unhandledRejection", (reason) => log.error({ error: reason instanceof Error ? reason.stack : String(reason) }, "unhandled rejection"));
  // The pod is ended by its deletion; a terminal's signals are for the command line.
  for (const signal of ["SIGINT", "SIGHUP", "SIGPIPE"] as const) process.on(signal, () => {});
  let sandbox: Sandbox | undefined;
  try {
    native().planJail();
    sandbox = new Sandbox(config, log);
    const made = sandbox;
    process.on("SIGTERM", () => void made.shutdown(0));
    await made.start();
    tell({ ok: true });
  } catch (error) {
    log.error({ error: errorChain(error) }, "start failed");
    tell({ ok: false, error: describeFailure(error) });
    await sandbox?.shutdown(0);
    process.exit(1); // what the half-made one has open would keep the process
  }
}

void main();
