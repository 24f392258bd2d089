/** src/cli/globals.ts: the folder of all state. */
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { parseFlags } from "../../src/cli/flags.ts";
import { globalFlags, readGlobals } from "../../src/cli/globals.ts";
import { temporaryFolder } from "./helpers.ts";

function rootOf(path: string): string {
  return readGlobals(parseFlags(["--root", path, "list"], { flags: globalFlags, stopAtArgument: true }).flags).root;
}

test("--root is taken without symbolic links and dots, whether it is there or not", (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, "run/there"), { recursive: true });
  mkdirSync(join(folder, "var"));
  symlinkSync("../run", join(folder, "var/run"));
  t.is(rootOf(join(folder, "var/run/there")), join(folder, "run/there"));
  t.is(rootOf(join(folder, "var/run/docker/runtime-tskata/moby")), join(folder, "run/docker/runtime-tskata/moby"));
  t.is(rootOf(`${folder}/run/../run/new`), join(folder, "run/new"));
  t.is(rootOf("/no/such/folder"), "/no/such/folder");
  symlinkSync("loop", join(folder, "loop"));
  t.is(rootOf(join(folder, "loop/x")), join(folder, "loop/x"));
});
