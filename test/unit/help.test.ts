/** src/cli/help.ts: the help of every verb and of the program, in runc's layout. */
import test from "ava";
import { globalFlags } from "../../src/cli/globals.ts";
import { programHelp, verbHelp } from "../../src/cli/help.ts";
import type { Verb } from "../../src/cli/verb.ts";
import { loadVerb, verbs } from "../../src/cli/verbs.ts";
import { runc } from "./helpers.ts";

const verb: Verb = {
  name: "demo",
  summary: "show something",
  synopsis: "<container-id>",
  description: "First line\nsecond line.\n\n    an example",
  flags: [
    { name: "all", alias: "a", kind: "boolean", help: "every one" },
    { name: "interval", kind: "duration", default: "5s", help: "how often" },
  ],
  arguments: { least: 1, most: 1 },
  run: async () => 0,
};

test("a verb's help: name, usage, description, options in columns", (t) => {
  t.is(
    verbHelp(verb),
    `NAME:
   tskata demo - show something

USAGE:
   tskata demo [command options] <container-id>

DESCRIPTION:
   First line
   second line.

       an example

OPTIONS:
   --all, -a         every one
   --interval value  how often (default: 5s)

`.slice(0, -1),
  );
});

test("a verb without flags and arguments has neither in its help", (t) => {
  const plain = verbHelp({ ...verb, flags: [], synopsis: "" });
  t.regex(plain, /^ {3}tskata demo$/m);
  t.notRegex(plain, /OPTIONS/);
});

test("what is no verb is none", async (t) => {
  for (const name of ["nope", "", "constructor", "__proto__", "hasOwnProperty"]) t.is(await loadVerb(name), undefined);
});

test("every verb is loaded under its own name, its flags are told apart, its lines are not too long", async (t) => {
  for (const [name, load] of Object.entries(verbs)) {
    const loaded = await load();
    t.is(loaded.name, name);
    t.true(loaded.arguments.least <= loaded.arguments.most, name);
    const names = loaded.flags.flatMap((flag) => [flag.name, ...(flag.alias === undefined ? [] : [flag.alias])]);
    t.is(new Set(names).size, names.length, name);
    for (const line of loaded.description.split("\n")) t.true(line.length <= 130, line);
  }
});

test("the program's help names every verb and global flag", async (t) => {
  const help = await programHelp();
  for (const name of Object.keys(verbs)) t.regex(help, new RegExp(`^   ${name} +\\S`, "m"));
  for (const { name } of globalFlags) t.regex(help, new RegExp(`^   --${name}\\b`, "m"));
  t.regex(help, /^ {3}spec: \d/m);
});

const NOT_OFFERED = new Set(["checkpoint", "restore"]);

test("runc's verbs and global flags are there but checkpoint and restore", async (t) => {
  const { stdout } = await runc("--help");
  const commands = /COMMANDS:\n(.*?)\n\n/s.exec(stdout)?.[1] ?? "";
  const names = [...commands.matchAll(/^ {3}(\w+)/gm)].map((match) => match[1] ?? "").filter((name) => name !== "help");
  t.true(names.length > 10);
  t.deepEqual(
    names.filter((name) => !NOT_OFFERED.has(name) && !Object.hasOwn(verbs, name)),
    [],
  );
  const flags = [...stdout.matchAll(/^ {3}--([\w-]+)/gm)].map((match) => match[1] ?? "");
  t.deepEqual(
    flags.filter((flag) => !globalFlags.some(({ name }) => name === flag)),
    [],
  );
});

test("every flag of runc's verbs is taken", async (t) => {
  const shared = Object.keys(verbs).filter((name) => !["check", "logs", "timeline", "gc"].includes(name));
  await Promise.all(
    shared.map(async (name) => {
      const { stdout } = await runc(name, "--help");
      const theirs = [...stdout.matchAll(/^ {3}--([\w-]+)(?: value)?(?:, -(\w)\b)?/gm)];
      const ours = (await loadVerb(name))?.flags ?? [];
      for (const [, long, short] of theirs) {
        const flag = ours.find((candidate) => candidate.name === long);
        t.true(flag !== undefined && (short === undefined || flag.alias === short), `${name} --${long ?? ""}, -${short ?? ""}`);
      }
    }),
  );
});
