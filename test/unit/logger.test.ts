/** src/telemetry/logger.ts: lines equal to those runc's logrus writes, and where they go. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { formatLine, type LogFormat, Logger, rfc3339 } from "../../src/telemetry/logger.ts";
import { repository, runc, runProgram, temporaryFolder } from "./helpers.ts";

const TIME = "2026-11-20T22:51:09Z";
const formats: readonly LogFormat[] = ["text", "json"];

/** Begins a script that runs in a process of its own. */
const LOAD = `const { Logger, rfc3339 } = await import(${JSON.stringify(join(repository, "src/telemetry/logger.ts"))});`;

/** The line with its time replaced; that it had one, alike in both formats, is checked by the comparison itself. */
function timeless(line: string): string {
  return line.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)/, TIME);
}

function ours(format: LogFormat, message: string): string {
  return timeless(formatLine(format, "error", message, new Date()));
}

test("the line of runc's own `state nobody`", async (t) => {
  const folder = temporaryFolder(t);
  for (const format of formats) {
    const file = join(folder, format);
    const { stderr } = await runc("--log", file, "--log-format", format, "state", "nobody");
    const line = readFileSync(file, "utf8");
    t.is(timeless(line), ours(format, "container does not exist"));
    t.is(stderr, "container does not exist\n");
    const log = new Logger({ file: join(folder, `${format}-ours`), format, level: "info" });
    log.error("container does not exist");
    t.is(timeless(readFileSync(join(folder, `${format}-ours`), "utf8")), timeless(line));
  }
});

test("on stderr a long message's further lines stand below its first, without what a terminal would obey", async (t) => {
  const { stderr } = await runProgram(process.execPath, [
    "--input-type=module",
    "-e",
    `${LOAD} new Logger({ format: "text", level: "info" }).error("first\\n  second\\n\\u001b[31m  third")`,
  ]);
  t.is(timeless(stderr), `time="${TIME}" level=error msg=first\n  second\n[31m  third\n`);
});

test("messages with anything in them, quoted as runc quotes them", async (t) => {
  const folder = temporaryFolder(t);
  const messages = [
    "plain",
    'quote " backslash \\ slash / percent %d',
    "tab\tnewline\nreturn\rbell\u0007vertical\vescape\u001b[31m one\u0001 delete\u007f",
    "é ü ß 日本語 ✔ 🎉 e\u0301",
    "c1\u0085 nbsp\u00a0 soft\u00ad zero\u200b sep\u2028\u2029 bom\ufeff private\ue000 tag\u{e0001} replaced\ufffd",
    "<script>&amp;'`",
    "a=b c_d-e.f@g^h+i",
  ];
  await Promise.all(
    messages.flatMap((message, index) =>
      formats.map(async (format) => {
        // runc repeats a word that is no verb.
        const file = join(folder, `${index}.${format}`);
        await runc("--log", file, "--log-format", format, `x${message}`);
        t.is(ours(format, `No help topic for 'x${message}'\n`), timeless(readFileSync(file, "utf8")), message);
      }),
    ),
  );
});

test("text needs no quotes where logrus gives none", (t) => {
  const when = new Date(0);
  const time = rfc3339(when);
  t.is(formatLine("text", "info", "a/b-c_d.e@f^g+9", when), `time="${time}" level=info msg=a/b-c_d.e@f^g+9\n`);
  t.is(formatLine("text", "warning", "", when), `time="${time}" level=warning msg=\n`);
  t.is(formatLine("text", "debug", "a b", when), `time="${time}" level=debug msg="a b"\n`);
  t.is(formatLine("json", "info", "", when), `{"level":"info","msg":"","time":"${time}"}\n`);
});

test("any message is one line; JSON gives it back", (t) => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (message) => {
      for (const format of formats) {
        const line = formatLine(format, "error", message, new Date());
        t.regex(line, /^[^\p{Zl}\p{Zp}\p{Cc}]*\n$/u);
      }
      t.is((JSON.parse(formatLine("json", "error", message, new Date())) as { msg: string }).msg, message);
    }),
    { numRuns: 300 },
  );
});

test("times are local, to the second, as Go's RFC3339", async (t) => {
  const zones: [string, string][] = [
    ["UTC", "2026-07-01T12:00:00Z"],
    ["Asia/Kolkata", "2026-07-01T17:30:00+05:30"],
    ["America/St_Johns", "2026-07-01T09:30:00-02:30"],
    ["Pacific/Chatham", "2026-07-02T00:45:00+12:45"],
  ];
  const script = `${LOAD} process.stdout.write(rfc3339(new Date("2026-07-01T12:00:00.999Z")));`;
  await Promise.all(
    zones.map(async ([zone, expected]) => {
      const { stdout } = await runProgram(process.execPath, ["--input-type=module", "-e", script], { env: { TZ: zone } });
      t.is(stdout, expected);
    }),
  );
});

test("lines below the level are left out; the file is appended to", (t) => {
  const file = join(temporaryFolder(t), "log");
  writeFileSync(file, "before\n");
  const log = new Logger({ file, format: "text", level: "warning" });
  log.debug("one");
  log.info("two");
  log.warning("three");
  log.error("four");
  t.deepEqual(readFileSync(file, "utf8").match(/(?<=msg=).*|before/g), ["before", "three", "four"]);
  const made = new Logger({ file: `${file}2`, format: "text", level: "debug" });
  made.debug("one");
  t.is(statSync(`${file}2`).mode & 0o777, 0o644 & ~process.umask());
});

/** Runs lines of a logger in a process of its own: stderr is what is looked at. */
async function stderrOf(options: string, calls: string): Promise<string> {
  const script = `${LOAD} const log = new Logger(${options}); ${calls}`;
  const { code, stderr } = await runProgram(process.execPath, ["--input-type=module", "-e", script]);
  return code === 0 ? stderr : `exit ${code}: ${stderr}`;
}

test("without a file to stderr; with one a fatal message is there as well, bare", async (t) => {
  const file = join(temporaryFolder(t), "log");
  t.is(timeless(await stderrOf('{ format: "json", level: "info" }', 'log.fatal("no");')), `{"level":"error","msg":"no","time":"${TIME}"}\n`);
  t.is(await stderrOf(JSON.stringify({ file, format: "text", level: "info" }), 'log.info("quiet"); log.fatal("loud");'), "loud\n");
});

test("a log on a full disk doesn't end the command", async (t) => {
  const options = JSON.stringify({ file: "/dev/full", format: "text", level: "info" });
  t.regex(await stderrOf(options, 'log.info("x");'), /^Failed to write to log, .*no space left on device.*\n$/);
  t.regex(await stderrOf(options, 'log.fatal("why");'), /^Failed to write to log, .*\nwhy\n$/);
});
