/** guest-kernel: symbols a configuration did not grant are found, and the fragments don't contradict each other. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { refusedSymbols } from "../../guest-kernel/build.ts";
import { repository } from "./helpers.ts";

test("a fragment whose lines are all there is granted", (t) => {
  const config = '#\n# Automatically generated\n#\nCONFIG_A=y\nCONFIG_NAME="x=y"\nCONFIG_N=12\n# CONFIG_OFF is not set\n';
  t.deepEqual(refusedSymbols(config, config), []);
  t.deepEqual(refusedSymbols('CONFIG_A=y\n# a remark\n\n  \nCONFIG_NAME="x=y"', config), []);
  t.deepEqual(refusedSymbols("", config), []);
});

test("a symbol not set may be written or left out", (t) => {
  t.deepEqual(refusedSymbols("# CONFIG_OFF is not set\n# CONFIG_NOVEL is not set", "# CONFIG_OFF is not set"), []);
  t.deepEqual(refusedSymbols("CONFIG_OFF=n", ""), []);
});

test("what was not granted is named with what there is", (t) => {
  const config = "CONFIG_MODULE=m\nCONFIG_ON=y\n# CONFIG_OFF is not set\nCONFIG_SIZE=5";
  const fragment = "CONFIG_MODULE=y\n# CONFIG_ON is not set\nCONFIG_OFF=y\nCONFIG_GONE=y\nCONFIG_SIZE=6";
  t.deepEqual(refusedSymbols(fragment, config), [
    "CONFIG_MODULE: asked for y, got m",
    "CONFIG_ON: asked for n, got y",
    "CONFIG_OFF: asked for y, got n",
    "CONFIG_GONE: asked for y, got n",
    "CONFIG_SIZE: asked for 6, got 5",
  ]);
});

test("of a symbol that is asked for twice the last line counts", (t) => {
  t.deepEqual(refusedSymbols("# CONFIG_ACPI is not set\nCONFIG_ACPI=y", "CONFIG_ACPI=y"), []);
  t.deepEqual(refusedSymbols("CONFIG_ACPI=y\n# CONFIG_ACPI is not set", "CONFIG_ACPI=y"), ["CONFIG_ACPI: asked for n, got y"]);
});

test("a symbol whose name begins another's is not it", (t) => {
  t.deepEqual(refusedSymbols("CONFIG_NET=y", "CONFIG_NET_NS=y"), ["CONFIG_NET: asked for y, got n"]);
  t.deepEqual(refusedSymbols("CONFIG_NET=y", " CONFIG_NET=y"), ["CONFIG_NET: asked for y, got n"]);
});

test("exactly the differences of two configurations are found", (t) => {
  const symbols = fc.dictionary(fc.stringMatching(/^[A-Z][A-Z0-9_]{0,5}$/), fc.constantFrom("y", "m", "n", "7", '"s"'), { maxKeys: 8 });
  const written = (config: Record<string, string>): string =>
    Object.entries(config)
      .map(([name, value]) => (value === "n" ? `# CONFIG_${name} is not set` : `CONFIG_${name}=${value}`))
      .join("\n");
  fc.assert(
    fc.property(symbols, symbols, (asked, got) => {
      const expected = Object.entries(asked).filter(([name, value]) => (Object.hasOwn(got, name) ? got[name] : "n") !== value);
      t.deepEqual(
        refusedSymbols(written(asked), written(got)).map((line) => line.split(":")[0]),
        expected.map(([name]) => `CONFIG_${name}`),
      );
    }),
  );
});

const FRAGMENTS = join(repository, "guest-kernel/fragments");
const fragments = readdirSync(FRAGMENTS).map((name) => ({ name, text: readFileSync(join(FRAGMENTS, name), "utf8") }));

test("the fragments hold only symbols and remarks", (t) => {
  t.true(fragments.length > 0);
  for (const { name, text } of fragments) {
    const odd = text.split("\n").filter((line) => line !== "" && !/^CONFIG_[A-Z0-9_a-z]+=(y|-?\d+|0x[\da-f]+|".*")$|^# /.test(line));
    t.deepEqual(odd, [], name);
    t.deepEqual(
      text.split("\n").filter((line) => /is not set/.test(line) && !/^# CONFIG_\w+ is not set$/.test(line)),
      [],
      name,
    );
  }
});

test("no symbol is asked for twice", (t) => {
  const names = fragments.flatMap(({ text }) => [...text.matchAll(/^(?:# )?(CONFIG_\w+)(?:=| is not set)/gm)].map((match) => match[1] ?? ""));
  t.deepEqual(
    names.filter((name, index) => names.indexOf(name) !== index),
    [],
  );
});
