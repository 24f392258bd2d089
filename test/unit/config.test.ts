/** src/config/config.ts: the file found, read and checked; every mistake told with its place. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { checkConfig, defaultConfig, loadConfig, parseConfig } from "../../src/config/config.ts";
import { failure, temporaryFolder } from "./helpers.ts";

test("an empty file, and one with every default written out, are the defaults", (t) => {
  t.deepEqual(parseConfig("", "c"), defaultConfig());
  t.deepEqual(checkConfig(structuredClone(defaultConfig()), "c"), defaultConfig());
  t.deepEqual(parseConfig("[guest]\n[sandbox]\n", "c"), defaultConfig());
});

test("what the file says is taken, the rest are defaults", (t) => {
  const config = parseConfig(
    '[guest]\nkernel = "/k"\nkernel_parameters = ["quiet", "a=b"]\ndefault_vcpus = 4\n[annotations]\nallowed = ["guest\\\\..*"]\n',
    "c",
  );
  const { guest } = defaultConfig();
  t.deepEqual(config, {
    ...defaultConfig(),
    guest: { ...guest, kernel: "/k", kernel_parameters: ["quiet", "a=b"], default_vcpus: 4 },
    annotations: { allowed: ["guest\\..*"] },
  });
});

test("defaults are not shared between two readers", (t) => {
  defaultConfig().guest.kernel_parameters.push("changed");
  parseConfig("", "c").annotations.allowed.push("changed");
  t.deepEqual(defaultConfig().guest.kernel_parameters, []);
  t.deepEqual(defaultConfig().annotations.allowed, []);
});

test("a mistake is told with the file and the option", (t) => {
  const wrong: [string, string][] = [
    ["guest.default_vcpus = 0", "c: guest.default_vcpus: expected at least 1, found 0"],
    ["guest.default_vcpus = 1.5", "c: guest.default_vcpus: expected a whole number, found 1.5"],
    ["guest.default_vcpus = nan", "c: guest.default_vcpus: expected a number, found NaN"],
    ['guest.default_vcpus = "2"', 'c: guest.default_vcpus: expected a number, found "2"'],
    ["guest.default_vcpu = 2", 'c: guest: unknown key "default_vcpu"'],
    ["gest.default_vcpus = 2", 'c: (document): unknown key "gest"'],
    ["guest = 1", "c: guest: expected an object, found 1"],
    ['guest.kernel = "vmlinux"', 'c: guest.kernel: expected an absolute path, found "vmlinux"'],
    ['guest.kernel_parameters = ["a b"]', 'c: guest.kernel_parameters[0]: expected one word, found "a b"'],
    ['guest.log_level = "warning"', 'c: guest.log_level: expected "trace", "debug", "info", "warn" or "error", found "warning"'],
    ['hypervisor.driver = "xen"', 'c: hypervisor.driver: expected "auto", "kvm" or "qemu", found "xen"'],
    ['annotations.allowed = ["("]', 'c: annotations.allowed[0]: expected a regular expression, found "("'],
    ["guest.log_level = 2026-01-01", 'c: guest.log_level: expected "trace", "debug", "info", "warn" or "error", found an object'],
  ];
  for (const [text, message] of wrong) t.throws(() => parseConfig(text, "c"), failure("invalid", message), text);
});

test("what is not TOML is told with its line and column", (t) => {
  t.throws(() => parseConfig("[guest]\ndefault_vcpus = = 2", "c"), failure("invalid", /^c is not TOML: line 2, column \d+: \S.*$/));
  t.throws(() => parseConfig("a = 1\na = 2", "c"), failure("invalid", /^c is not TOML: line 2, /));
  t.throws(() => parseConfig("guest.default_vcpus = 99999999999999999999", "c"), failure("invalid", /^c is not TOML: line 1, /));
});

test.serial("the named file, else TSKATA_CONFIG's, must be there; the default one need not", (t) => {
  const folder = temporaryFolder(t);
  const file = (name: string, vcpus: number): string => {
    writeFileSync(join(folder, name), `guest.default_vcpus = ${vcpus}`);
    return join(folder, name);
  };
  const before = process.env["TSKATA_CONFIG"];
  t.teardown(() => {
    if (before === undefined) delete process.env["TSKATA_CONFIG"];
    else process.env["TSKATA_CONFIG"] = before;
  });
  process.env["TSKATA_CONFIG"] = file("environment", 7);
  t.is(loadConfig(file("named", 5)).guest.default_vcpus, 5);
  t.is(loadConfig(undefined).guest.default_vcpus, 7);
  process.env["TSKATA_CONFIG"] = join(folder, "missing");
  t.throws(() => loadConfig(), failure("invalid", `read the configuration ${join(folder, "missing")}`));
  t.throws(() => loadConfig(folder), failure("invalid", /^read the configuration /));
  process.env["TSKATA_CONFIG"] = "";
  t.notThrows(() => loadConfig());
});

test("any text is a configuration or that error", (t) => {
  const options = fc.constantFrom("guest.max_vcpus", "guest.kernel", "sandbox.fs_threads", "annotations.allowed", "hypervisor.qemu", "x");
  const value = fc.oneof(
    fc.jsonValue().map((any) => JSON.stringify(any)),
    fc.integer().map(String),
    fc.string(),
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.tuple(options, value).map((pair) => pair.join(" = ")),
      ),
      (text) => {
        try {
          t.truthy(parseConfig(text, "c").guest);
        } catch (error) {
          t.true(error instanceof TskataError && error.code === "invalid" && error.message.startsWith("c"), String(error));
        }
      },
    ),
    { numRuns: 300 },
  );
});
