/** docs/configuration.md against the schema of src/config/config.ts: the same sections, keys, defaults and choices. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { DEFAULT_CONFIG } from "../../src/base/paths.ts";
import { applyAnnotations } from "../../src/config/annotations.ts";
import { type Config, checkConfig, defaultConfig, parseConfig } from "../../src/config/config.ts";
import { podSize } from "../../src/config/sizing.ts";
import { repository } from "./helpers.ts";

const text = readFileSync(join(repository, "docs/configuration.md"), "utf8");
const ABSENT = "–";

interface Row {
  readonly section: string;
  readonly key: string;
  readonly type: string;
  readonly default: string;
  readonly meaning: string;
}

/** The rows of the tables under headings such as "### `[guest]`". */
function rows(): Row[] {
  const found: Row[] = [];
  for (const part of text.split(/^### /m).slice(1)) {
    const section = /^`\[(\w+)\]`$/m.exec(part.split("\n")[0] ?? "")?.[1] ?? "";
    const lines = part.split(/^## /m)[0]?.split("\n") ?? [];
    for (const line of lines.filter((candidate) => candidate.startsWith("| `"))) {
      const [key = "", type = "", value = "", meaning = "", ...rest] = line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim());
      if (rest.length > 0) throw new Error(`a row of [${section}] has too many cells: ${line}`);
      found.push({ section, key: key.replaceAll("`", ""), type, default: value.replaceAll("`", ""), meaning });
    }
  }
  return found;
}

const documented = rows();

/** The defaults with one option changed, as far as the schema takes it. */
function takes({ section, key }: Row, value: unknown): boolean {
  const config = structuredClone(defaultConfig()) as unknown as Record<string, Record<string, unknown>>;
  Object.assign(config[section] ?? {}, { [key]: value });
  try {
    checkConfig(config, "c");
    return true;
  } catch {
    return false;
  }
}

test("every option of the schema is in a table with its default, and nothing else is", (t) => {
  const inDocument: Record<string, Record<string, unknown>> = {};
  for (const { section, key, default: value } of documented) {
    inDocument[section] ??= {};
    const options = inDocument[section];
    t.false(key in options, `${section}.${key} twice`);
    options[key] = value === ABSENT ? undefined : (JSON.parse(value) as unknown);
  }
  const withoutAbsent = JSON.parse(JSON.stringify(inDocument)) as Config;
  t.deepEqual(withoutAbsent, defaultConfig());
  t.deepEqual(
    documented.filter((row) => row.default === ABSENT).map(({ section, key }) => `${section}.${key}`),
    ["guest.kernel", "guest.image"],
  );
});

test("an option with a default of nothing is an option", (t) => {
  for (const row of documented.filter(({ default: value }) => value === ABSENT)) t.true(takes(row, "/some/file"), row.key);
  t.false(takes({ section: "guest", key: "novel", type: "", default: "", meaning: "" }, "/some/file"));
});

test("types are the schema's", (t) => {
  for (const row of documented) {
    const name = `${row.section}.${row.key}`;
    const least = /^integer ≥ (\d+)$/.exec(row.type)?.[1];
    const choices = row.type.match(/(?<=`)\w+(?=`)/g);
    if (least !== undefined) {
      t.true(takes(row, Number(least)) && !takes(row, Number(least) - 1) && !takes(row, Number(least) + 0.5), name);
    } else if (choices !== null) {
      for (const choice of choices) t.true(takes(row, choice), `${name} = ${choice}`);
      t.false(takes(row, "another"), name);
    } else if (row.type === "boolean") t.true(takes(row, true) && takes(row, false) && !takes(row, "true"), name);
    else if (row.type === "path") t.true(takes(row, "/x") && !takes(row, "x"), name);
    else if (row.type === "list") t.true(takes(row, ["x"]) && !takes(row, "x"), name);
    else t.true(row.type === "text" && takes(row, "x") && !takes(row, 1), `${name}: ${row.type}`);
  }
});

test("the choices are all that the schema has", (t) => {
  for (const row of documented.filter(({ type }) => type.startsWith("`"))) {
    const said = t.throws(() => parseConfig(`${row.section}.${row.key} = "?"`, "c"))?.message ?? "";
    t.deepEqual(row.type.match(/(?<=`)\w+(?=`)/g), said.replace(/, found .*$/, "").match(/(?<=")\w+(?=")/g), row.key);
  }
});

test("every option's meaning is told", (t) => {
  for (const { section, key, meaning } of documented) t.regex(meaning, /^.{20,}[.\w]$/, `${section}.${key}`);
});

test("the example file and the example annotation work together", (t) => {
  const toml = /```toml\n(.*?)```/s.exec(text)?.[1] ?? "";
  const { annotations } = JSON.parse(/```json\n(.*?)```/s.exec(text)?.[1] ?? "") as { annotations: Record<string, string> };
  t.is(applyAnnotations(parseConfig(toml, "example"), annotations).guest.default_memory_mib, 4096);
});

test("the sizes of the example are what is computed", (t) => {
  const host = { cpus: 64, memoryMib: 1 << 20 };
  const { guest } = defaultConfig();
  const said = /`docker run --cpus ([\d.]+) --memory (\d+)m` gives a machine with (\d+) CPUs and (\d+) MiB; without limits it has (\d+) CPU and (\d+) MiB/.exec(
    text,
  );
  const [cpus = 0, memory = 0, ...sizes] = (said ?? []).slice(1).map(Number);
  const limited = podSize(guest, { cpu: { quota: cpus * 100_000, period: 100_000 }, memory: { limit: memory * 2 ** 20 } }, {}, host);
  const unlimited = podSize(guest, undefined, {}, host);
  t.deepEqual(sizes, [limited.vcpus, limited.memoryMib, unlimited.vcpus, unlimited.memoryMib]);
});

test("the search order names the right things", (t) => {
  const places = [...text.matchAll(/^\d\. .*`([^`]+)`$/gm)].map((match) => match[1]);
  t.deepEqual(places, ["--config FILE", "TSKATA_CONFIG", DEFAULT_CONFIG]);
});
