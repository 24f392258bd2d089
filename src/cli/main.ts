/** Entry point of `tskata`. */
import { runCommandLine } from "./command-line.ts";

void runCommandLine(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
