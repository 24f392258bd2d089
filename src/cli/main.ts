/**
 * Entry point of `tskata`. `state`, which callers ask again and again, is answered from here: this bundle is small and
 * node reads it sooner. Everything else is the whole command line's, a bundle of its own.
 */
import { quickState } from "./quick-state.ts";

/** Everything is written synchronously, so nothing is lost; node's own way out takes its heap down piece by piece first. */
function end(code: number): never {
  process.exit(code);
}

const words = process.argv.slice(2);
const code = quickState(words);
if (code !== undefined) end(code);
void import("./command-line.ts").then(async ({ runCommandLine }) => end(await runCommandLine(words)));
