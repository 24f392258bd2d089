/** One call of `tskata`: global flags, the verb, its flags, the verb's work, and the one way a failure is told. */
import { errorChain } from "../base/errors.ts";
import { FailureError, sayPhase } from "../base/failures.ts";
import { Logger } from "../telemetry/logger.ts";
import { type Flags, parseFlags } from "./flags.ts";
import { globalFlags, openLogger, readGlobals } from "./globals.ts";
import { print } from "./output.ts";
import { UsageError } from "./usage-error.ts";
import type { Verb } from "./verb.ts";
import { loadVerb } from "./verbs.ts";

/** urfave/cli's exit code for a word that is no verb. */
const UNKNOWN_VERB = 3;

/** Runs one command line; resolves with the exit code and never rejects. */
export async function runCommandLine(words: readonly string[]): Promise<number> {
  let logger = new Logger({ format: "text", level: "info" });
  try {
    const { flags, args } = parseFlags(words, { flags: globalFlags, stopAtArgument: true });
    if (flags.boolean("version")) return await showVersion();
    const [name, ...rest] = args;
    if (flags.boolean("help") || name === undefined || name === "help" || name === "h") return await showHelp(rest[0]);
    logger = openLogger(flags);
    const verb = await loadVerb(name);
    if (verb === undefined) {
      logger.fatal(`No help topic for '${name}'`);
      return UNKNOWN_VERB;
    }
    return await runVerb(verb, rest, flags, logger);
  } catch (error) {
    if (error instanceof UsageError) await showUsage(error);
    logger.fatal(errorChain(error));
    return 1;
  }
}

async function runVerb(verb: Verb, words: readonly string[], globals: Flags, logger: Logger): Promise<number> {
  try {
    const { flags, args } = parseFlags(words, {
      flags: [...verb.flags, { name: "help", alias: "h", kind: "boolean", help: "show help" }],
      stopAtArgument: verb.stopAtArgument ?? false,
    });
    if (flags.boolean("help")) return await showHelp(verb.name);
    checkCount(verb, args.length);
    return await verb.run({ globals: readGlobals(globals), logger, flags, args });
  } catch (error) {
    return await tellFailure(verb, error, globals, logger);
  }
}

async function tellFailure(verb: Verb, thrown: unknown, globals: Flags, logger: Logger): Promise<number> {
  const error = firstFailure(thrown, logger);
  if (error instanceof UsageError) {
    await showUsage(error, verb);
    logger.fatal(error.message);
    return 1;
  }
  if (globals.boolean("debug") && error instanceof Error) logger.debug(error.stack ?? "");
  logger.fatal(`${prefixOf(verb, error)}${errorChain(error)}`);
  return verb.failureCode ?? 1;
}

/** Of a failure whose undoing has failed, too: the latter is a warning. */
function firstFailure(error: unknown, logger: Logger): unknown {
  if (!(error instanceof SuppressedError)) return error;
  logger.warning(`not all could be undone: ${errorChain(error.error)}`);
  return firstFailure(error.suppressed, logger);
}

/** runc's words; where a pod has failed, also the phase it failed in. */
function prefixOf({ name, failure }: Verb, error: unknown): string {
  const phase = error instanceof FailureError ? error.phase : undefined;
  if (phase !== undefined) return `${failure ?? `${name} failed`} ${sayPhase(phase)}: `;
  return failure === undefined ? "" : `${failure}: `;
}

function checkCount(verb: Verb, count: number): void {
  const { least, most } = verb.arguments;
  if (count >= least && count <= most) return;
  const wanted = least === most ? "exactly" : count < least ? "a minimum of" : "a maximum of";
  throw new UsageError(`tskata: "${verb.name}" requires ${wanted} ${count < least ? least : most} argument(s)`, ".");
}

async function showUsage(error: UsageError, verb?: Verb): Promise<void> {
  const { programHelp, verbHelp } = await import("./help.ts");
  print(`Incorrect Usage${error.headline}\n\n${verb === undefined ? await programHelp() : verbHelp(verb)}\n`);
}

async function showHelp(name: string | undefined): Promise<number> {
  const { programHelp, verbHelp } = await import("./help.ts");
  const verb = name === undefined ? undefined : await loadVerb(name);
  print(verb === undefined ? await programHelp() : verbHelp(verb));
  return 0;
}

async function showVersion(): Promise<number> {
  const { version } = await import("../base/version.ts");
  print(`tskata version ${version()}\n`);
  return 0;
}
