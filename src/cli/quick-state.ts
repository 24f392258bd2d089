/** `tskata state <id>` without the rest of the command line: the same flags, the same answer, the same failures, and nothing else. */
import { errorChain } from "../base/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { parseFlags } from "./flags.ts";
import { globalFlags, openLogger, readGlobals } from "./globals.ts";
import { print } from "./output.ts";
import { stateText } from "./state-text.ts";
import type { Globals } from "./verb.ts";

interface Call {
  readonly globals: Globals;
  readonly logger: Logger;
  readonly id: string;
}

/** The exit code; undefined when these words are for the whole command line: nothing has been printed then. */
export function quickState(words: readonly string[]): number | undefined {
  const call = parse(words);
  if (call === undefined) return undefined;
  try {
    print(stateText(call.globals, call.id));
    return 0;
  } catch (error) {
    call.logger.fatal(errorChain(error));
    return 1;
  }
}

/** Help, stack traces and words that are wrong are not for here. */
function parse(words: readonly string[]): Call | undefined {
  try {
    const { flags, args } = parseFlags(words, { flags: globalFlags, stopAtArgument: true });
    if (args[0] !== "state" || ["help", "version", "debug"].some((name) => flags.boolean(name))) return undefined;
    const own = parseFlags(args.slice(1), { flags: [], stopAtArgument: false });
    const id = own.args[0];
    if (id === undefined || own.args.length > 1) return undefined;
    return { logger: openLogger(flags), globals: readGlobals(flags), id };
  } catch {
    return undefined;
  }
}
