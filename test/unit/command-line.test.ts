/** src/cli/command-line.ts: whole calls of the program as a caller of runc sees them: output, log, exit code. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { version } from "../../src/base/version.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { type Outcome, runc, stateOf, storeState, temporaryFolder, tskata, tskataEach } from "./helpers.ts";

/** The error's words, without time, program name and quoting; runc ends this one message with a line break. */
function comparable({ code, stderr }: Outcome): unknown {
  const message = /msg="(.*)"$/m.exec(stderr)?.[1] ?? stderr.trimEnd();
  return { code, message: message.replaceAll(/\b(runc|tskata)\b/g, "it").replace(/\\n$/, "") };
}

test("failures have runc's words and exit codes", async (t) => {
  const calls = [
    ["state", "nobody"],
    ["state", ""],
    ["state", "../x"],
    ["state"],
    ["state", "a", "b"],
    ["state", "--nope", "x"],
    ["list", "extra"],
    ["list", "--format", "xml"],
    ["list", "--format"],
    ["nosuch"],
    ["--log-format", "xml", "list"],
    ["--log", "/no/such/folder/log", "list"],
  ];
  const root = temporaryFolder(t);
  const rooted = calls.map((words) => ["--root", root, ...words]);
  const [ours, theirs] = await Promise.all([tskataEach(rooted), Promise.all(rooted.map(async (words) => await runc(...words)))]);
  for (const [index, words] of calls.entries()) {
    const [our, their] = [ours[index], theirs[index]];
    if (our === undefined || their === undefined) return t.fail(`${words.join(" ")} was not run`);
    t.deepEqual(comparable(our), comparable(their), words.join(" "));
  }
});

test("with --log the failure is in the file, and bare on stderr", async (t) => {
  const file = join(temporaryFolder(t), "log");
  const { code, stdout, stderr } = await tskata("--log", file, "--log-format", "json", "state", "nobody");
  t.is(code, 1);
  t.is(stdout, "");
  t.is(stderr, "container does not exist\n");
  t.is((JSON.parse(readFileSync(file, "utf8")) as { msg: string }).msg, "container does not exist");
});

test("a full log's disk changes neither the message nor the exit code", async (t) => {
  const { code, stderr } = await tskata("--log", "/dev/full", "state", "nobody");
  t.is(code, 1);
  t.regex(stderr, /^Failed to write to log, .*\ncontainer does not exist\n$/);
});

test("a usage error shows the verb's help as well", async (t) => {
  const [unknown, none] = await tskataEach([["state", "--nope", "x"], ["state"]]);
  t.deepEqual([unknown?.code, none?.code], [1, 1]);
  t.regex(unknown?.stdout ?? "", /^Incorrect Usage: flag provided but not defined: -nope\n\nNAME:\n {3}tskata state - /);
  t.regex(none?.stdout ?? "", /^Incorrect Usage\.\n\nNAME:/);
});

test("help and version", async (t) => {
  const [long, short, help, ...others] = await tskataEach([["--version"], ["-v", "state"], ["help", "state"], ["state", "--help"], ["state", "x", "y", "-h"]]);
  t.deepEqual(long, { code: 0, stdout: `tskata version ${version()}\n`, stderr: "" });
  t.deepEqual(short, long);
  t.is(help?.code, 0);
  t.regex(help?.stdout ?? "", /^NAME:\n {3}tskata state - /);
  t.deepEqual(others, [help, help]);
});

test("no words at all show the program's help", async (t) => {
  const [none, ...others] = await tskataEach([[], ["--help"], ["help"], ["h"]]);
  t.is(none?.code, 0);
  t.regex(none?.stdout ?? "", /^NAME:\n {3}tskata - /);
  t.deepEqual(others, [none, none, none]);
});

test("the state of a container, as JSON without a line's end, as runc prints it", async (t) => {
  const root = temporaryFolder(t);
  storeState(root, stateOf(root));
  const { code, stdout, stderr } = await tskata("--root", root, "state", "box");
  t.is(code, 0);
  t.is(stderr, "");
  t.true(stdout.startsWith('{\n  "ociVersion": "1.2.0",\n  "id": "box",\n') && stdout.endsWith("\n}"));
  const { pid, status } = JSON.parse(stdout) as { pid: number; status: string };
  t.deepEqual([pid, status], [process.pid, "running"]);
});

test("lists: the table, ids alone, JSON; a damaged container is told in the log and left out", async (t) => {
  const root = temporaryFolder(t);
  for (const id of ["two", "one", "bad"]) storeState(root, stateOf(root, { id }));
  writeFileSync(join(root, "bad/state.json"), "{");
  const none = ["--root", join(root, "none"), "list", "-f", "json"];
  const outcomes = await tskataEach([...[[], ["-q"], ["--format=json"]].map((words) => ["--root", root, "list", ...words]), none]);
  t.deepEqual(
    outcomes.map(({ code }) => code),
    [0, 0, 0, 0],
  );
  const [plain = "", quiet = "", json = "", empty] = outcomes.map(({ stdout }) => stdout);
  t.deepEqual(
    plain.split("\n").map((line) => line.split(/ +/)[0]),
    ["ID", "one", "two", ""],
  );
  t.is(quiet, "one\ntwo\n");
  t.deepEqual(
    (JSON.parse(json) as { id: string; owner: string }[]).map(({ id, owner }) => [id, owner]),
    [
      ["one", "root"],
      ["two", "root"],
    ],
  );
  for (const { stderr } of outcomes.slice(0, 3)) t.regex(stderr, /level=error msg="load container bad: .*is damaged/);
  t.is(empty, (await runc(...none)).stdout);
});

test("spec writes the starter config, once", async (t) => {
  const folder = temporaryFolder(t);
  const [first, again] = await tskataEach([
    ["spec", "-b", folder],
    ["spec", "--bundle", folder],
  ]);
  t.deepEqual(first, { code: 0, stdout: "", stderr: "" });
  const written = readFileSync(join(folder, "config.json"), "utf8");
  t.deepEqual(JSON.parse(written), JSON.parse(JSON.stringify(specTemplate({ rootless: false, uid: 0, gid: 0 }))));
  t.is(again?.code, 1);
  t.regex(again?.stderr ?? "", /exists\. Remove it first/);
});

test("--rootless=true is refused, other words are invalid", async (t) => {
  const [refused, invalid, taken] = await tskataEach(["true", "maybe", "false"].map((word) => [`--rootless=${word}`, "--root", temporaryFolder(t), "list"]));
  t.regex(refused?.stderr ?? "", /rootless containers are not supported/);
  t.regex(invalid?.stderr ?? "", /invalid value \\"maybe\\" for --rootless/);
  t.is(taken?.code, 0);
});

test("--debug shows where a failure came from", async (t) => {
  t.regex((await tskata("--debug", "state", "nobody")).stderr, /level=debug msg="TskataError: container does not exist"\n {4}at /);
});
