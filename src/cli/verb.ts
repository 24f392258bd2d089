/** What a verb of the command line is: its words, its help, and the function that does it. */
import type { Logger } from "../telemetry/logger.ts";
import type { FlagSpec, Flags } from "./flags.ts";

/** What the global flags say. */
export interface Globals {
  readonly root: string;
  readonly systemdCgroup: boolean;
  readonly debug: boolean;
  /** Config file named on the command line. */
  readonly config: string | undefined;
}

export interface VerbContext {
  readonly globals: Globals;
  readonly logger: Logger;
  readonly flags: Flags;
  readonly args: readonly string[];
}

export interface Verb {
  readonly name: string;
  readonly summary: string;
  /** What follows the name in the usage line. */
  readonly synopsis: string;
  readonly description: string;
  readonly flags: readonly FlagSpec[];
  readonly arguments: { readonly least: number; readonly most: number };
  /** Arguments are a command of their own; see flags.ts. */
  readonly stopAtArgument?: boolean;
  /** Put before the message of a failure: "exec failed". */
  readonly failure?: string;
  /** Exit code of a failure; 1 when absent. */
  readonly failureCode?: number;
  /** Does it; the answer is the exit code. */
  run(context: VerbContext): Promise<number>;
}

/** Help for the `<container-id>` argument, the same for every verb that takes one. */
export const CONTAINER_ID_HELP = 'Where "<container-id>" is the name of the container, unique on this host.';
