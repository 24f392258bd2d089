/** src/config/annotations.ts: options changed by a pod's annotations, only where the administrator allows it. */
import test from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { applyAnnotations } from "../../src/config/annotations.ts";
import { type Config, defaultConfig } from "../../src/config/config.ts";
import { failure } from "./helpers.ts";

const allowing = (...allowed: string[]): Config => ({ ...defaultConfig(), annotations: { allowed } });
const everything = allowing(".*");

test("annotations of others, and the one for own volumes, change nothing, whatever is allowed", (t) => {
  const config = allowing("guest\\..*");
  t.is(
    applyAnnotations(config, {
      "io.kubernetes.pod.name": "x",
      "io.tskatax.guest.kernel": "/k",
      "IO.TSKATA.guest.kernel": "/k",
      "io.tskata.own-volumes": "/data",
    }),
    config,
  );
});

test("an allowed option is changed, and only in the copy", (t) => {
  const config = allowing("guest\\.(default_.*|kernel_parameters)", "guest\\.kernel");
  const before = structuredClone(config);
  const changed = applyAnnotations(config, {
    "io.tskata.guest.default_memory_mib": "4096",
    "io.tskata.guest.kernel_parameters": " quiet  a=b ",
    "io.tskata.guest.kernel": "/k",
  });
  t.deepEqual(changed, { ...config, guest: { ...config.guest, default_memory_mib: 4096, kernel_parameters: ["quiet", "a=b"], kernel: "/k" } });
  t.deepEqual(config, before);
});

test("what is not allowed is an error", (t) => {
  const key = "io.tskata.guest.default_vcpus";
  const refused = failure("invalid", `annotation ${key} is not allowed: the configuration's annotations.allowed has no pattern for "guest.default_vcpus"`);
  for (const patterns of [[], ["guest"], ["guest\\.default"], ["default_vcpus"], ["guest\\.default_vcpu|x"], ["hypervisor\\..*"]]) {
    t.throws(() => applyAnnotations(allowing(...patterns), { [key]: "2" }), refused, patterns.join());
  }
});

test("a pattern must match the whole option, also one with alternatives", (t) => {
  t.throws(() => applyAnnotations(allowing("guest\\.a|guest"), { "io.tskata.guest.kernel": "/k" }), failure("invalid", /is not allowed/));
  t.is(applyAnnotations(allowing("guest\\.a|guest\\.kernel"), { "io.tskata.guest.kernel": "/k" }).guest.kernel, "/k");
});

test("an option that isn't there is an error, also with everything allowed", (t) => {
  const unknown = [
    "guest",
    "guest.",
    "gest.kernel",
    "guest.kernel.x",
    ".kernel",
    "",
    "version",
    "oom-killed",
    "own-volume",
    "__proto__.x",
    "constructor.name",
    "guest.__proto__",
    "guest.Kernel",
  ];
  for (const option of unknown) {
    t.throws(
      () => applyAnnotations(everything, { [`io.tskata.${option}`]: "x" }),
      failure("invalid", `annotation io.tskata.${option}: there is no such option`),
    );
  }
  for (const name of ["default_vcpu", "constructor", "toString"]) {
    t.throws(
      () => applyAnnotations(everything, { [`io.tskata.guest.${name}`]: "1" }),
      failure("invalid", `annotations io.tskata.*: guest: unknown key "${name}"`),
    );
  }
});

test("a boolean is the file's word for it", (t) => {
  for (const [value, expected] of [
    ["true", true],
    ["false", false],
  ] as const) {
    t.is(applyAnnotations(everything, { "io.tskata.sandbox.writeback": value }).sandbox.writeback, expected);
  }
});

test("what is allowed can't be changed by an annotation", (t) => {
  t.throws(() => applyAnnotations(everything, { "io.tskata.annotations.allowed": ".*" }), failure("invalid", /there is no such option$/));
});

test("the value is checked as in the file", (t) => {
  const wrong: [string, string, string][] = [
    ["guest.default_vcpus", "0", "guest.default_vcpus: expected at least 1, found 0"],
    ["guest.default_vcpus", "two", 'guest.default_vcpus: expected a number, found "two"'],
    ["guest.default_vcpus", "1.5", 'guest.default_vcpus: expected a number, found "1.5"'],
    ["guest.default_vcpus", "", 'guest.default_vcpus: expected a number, found ""'],
    ["sandbox.writeback", "no", 'sandbox.writeback: expected a boolean, found "no"'],
    ["guest.kernel", "k", 'guest.kernel: expected an absolute path, found "k"'],
    ["guest.log_level", "loud", 'guest.log_level: expected "trace", "debug", "info", "warn" or "error", found "loud"'],
  ];
  for (const [option, value, message] of wrong) {
    t.throws(() => applyAnnotations(everything, { [`io.tskata.${option}`]: value }), failure("invalid", `annotations io.tskata.*: ${message}`), option);
  }
});

test("any annotation leaves a valid configuration or that error, and the same answer about what is allowed", (t) => {
  const option = fc.oneof(
    fc.string(),
    fc
      .tuple(
        fc.constantFrom("guest", "sandbox", "annotations", "hypervisor", "__proto__"),
        fc.constantFrom("kernel", "default_vcpus", "allowed", "__proto__", "x"),
      )
      .map((pair) => pair.join(".")),
  );
  fc.assert(
    fc.property(option, fc.string(), (name, value) => {
      try {
        const { annotations } = applyAnnotations(everything, { [`io.tskata.${name}`]: value });
        t.deepEqual(annotations, everything.annotations);
      } catch (error) {
        t.true(error instanceof TskataError && error.code === "invalid", String(error));
      }
    }),
    { numRuns: 300 },
  );
});
