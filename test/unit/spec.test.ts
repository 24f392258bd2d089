/** src/oci/spec.ts: what a config.json, a process and resources may hold, and how a bad field is told. */
import test from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { parseProcess, parseResources, parseSpec } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { failure } from "./helpers.ts";

const minimal = { ociVersion: "1.2.0" };

/** The template with one field changed; the path is of keys and indexes. */
function changed(path: string, value: unknown): unknown {
  const spec = structuredClone(specTemplate({ rootless: false, uid: 0, gid: 0 })) as unknown as Record<string, unknown>;
  const keys = path.split(".");
  let at = spec;
  for (const key of keys.slice(0, -1)) {
    at[key] ??= {};
    at = at[key] as Record<string, unknown>;
  }
  at[keys.at(-1) ?? ""] = value;
  return spec;
}

const process = { cwd: "/" };

test("the least config, and one with everything, pass unchanged", (t) => {
  t.deepEqual(parseSpec(minimal, "c"), minimal);
  const template = specTemplate({ rootless: true, uid: 1000, gid: 1000 });
  t.deepEqual(parseSpec(structuredClone(template), "c"), template);
});

test("unknown properties are passed on", (t) => {
  const spec = { ...minimal, vm: { hypervisor: {} }, process: { ...process, novel: [1], user: { uid: 0, extra: true } }, linux: { future: "x" } };
  t.deepEqual(parseSpec(structuredClone(spec), "c"), spec as never);
});

test("Go's nulls mean absent", (t) => {
  const spec = parseSpec({ ...minimal, process: { ...process, args: null, capabilities: null }, mounts: null, linux: { resources: null } }, "c");
  t.deepEqual(spec, { ...minimal, process, linux: {} });
});

test("a bad field is named by its path, with the file", (t) => {
  const wrong: [string, unknown, string][] = [
    ["ociVersion", "one", 'ociVersion: expected a version such as "1.2.0", found "one"'],
    ["ociVersion", undefined, "ociVersion: missing"],
    ["process.cwd", "tmp", 'process.cwd: expected an absolute path, found "tmp"'],
    ["process.cwd", undefined, "process.cwd: missing"],
    ["process.args", "sh", 'process.args: expected an array, found "sh"'],
    ["process.args", ["sh", 1], "process.args[1]: expected a string, found 1"],
    ["process.args", ["sh", null], "process.args[1]: expected a string, found null"],
    ["process.user.uid", -1, "process.user.uid: expected at least 0, found -1"],
    ["process.user.uid", 2 ** 32, "process.user.uid: expected at most 4294967295, found 4294967296"],
    ["process.user.uid", 0.5, "process.user.uid: expected a whole number, found 0.5"],
    ["process.oomScoreAdj", -1001, "process.oomScoreAdj: expected at least -1000, found -1001"],
    ["process.consoleSize", { height: 70_000, width: 1 }, "process.consoleSize.height: expected at most 65535, found 70000"],
    ["process.ioPriority", { class: "IOPRIO_CLASS_BE", priority: 8 }, "process.ioPriority.priority: expected at most 7, found 8"],
    ["process.rlimits.0.hard", -1, "process.rlimits[0].hard: expected at least 0, found -1"],
    ["process.rlimits.0.hard", 1.5, "process.rlimits[0].hard: expected a whole number, found 1.5"],
    ["root.path", "", 'root.path: expected a path, found ""'],
    ["root.readonly", "yes", 'root.readonly: expected a boolean, found "yes"'],
    ["mounts.0.destination", "", 'mounts[0].destination: expected a path, found ""'],
    ["annotations", { a: 1 }, "annotations.a: expected a string, found 1"],
    ["hooks", { prestart: [{ path: "x" }] }, 'hooks.prestart[0].path: expected an absolute path, found "x"'],
    ["hooks", { poststop: [{ path: "/x", timeout: 0 }] }, "hooks.poststop[0].timeout: expected more than 0 seconds, found 0"],
    ["linux.namespaces.0.type", "net", /^c: linux\.namespaces\[0\]\.type: expected "pid", .* or "time", found "net"$/.source],
    ["linux.rootfsPropagation", "shard", /linux\.rootfsPropagation: expected "shared", /.source],
    ["linux.resources.unified", { "memory.max": 5 }, 'linux.resources.unified["memory.max"]: expected a string, found 5'],
    ["linux.resources.devices.0.type", "x", /linux\.resources\.devices\[0\]\.type: expected "a", /.source],
    ["linux.seccomp", {}, "linux.seccomp.defaultAction: missing"],
    [
      "linux.seccomp",
      { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: [], action: "SCMP_ACT_KILL" }] },
      "linux.seccomp.syscalls[0].names: expected at least one system call, found an array",
    ],
    ["linux.devices", [{ path: "/dev/x", type: "d" }], /linux\.devices\[0\]\.type: expected "c", "b", "u" or "p", found "d"/.source],
    ["linux.personality", { domain: "LINUX64" }, 'linux.personality.domain: expected "LINUX" or "LINUX32", found "LINUX64"'],
    ["linux.uidMappings", [{ containerID: 0, hostID: 0 }], "linux.uidMappings[0].size: missing"],
  ];
  for (const [path, value, message] of wrong) {
    const expected = message.includes("\\") ? new RegExp(message) : `c: ${message}`;
    t.throws(() => parseSpec(changed(path, value), "c"), failure("invalid", expected), path);
  }
});

test("a document that is no object", (t) => {
  for (const value of [null, [], "x", 3, true]) t.throws(() => parseSpec(value, "c"), failure("invalid", /^c: \(document\): (expected an object|missing)/));
});

test("unlimited values beyond 2^53 pass, but not where a seccomp filter compares them bit by bit", (t) => {
  const rlimits = JSON.parse('[{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 18446744073709551615}]') as unknown;
  t.notThrows(() => parseSpec(changed("process.rlimits", rlimits), "c"));
  t.notThrows(() => parseResources({ memory: { limit: 2 ** 63 - 4096, swap: -1 } }, "r"));
  const filter = (value: number): unknown => ({
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: [{ names: ["clone"], action: "SCMP_ACT_ERRNO", args: [{ index: 0, value, op: "SCMP_CMP_MASKED_EQ" }] }],
  });
  t.notThrows(() => parseSpec(changed("linux.seccomp", filter(2 ** 53 - 1)), "c"));
  t.throws(() => parseSpec(changed("linux.seccomp", filter(2 ** 53)), "c"), failure("invalid", /args\[0\]\.value: expected at most 9007199254740991/));
});

test("a process and resources of their own", (t) => {
  t.deepEqual(parseProcess({ cwd: "/x", args: ["a"] }, "p"), { cwd: "/x", args: ["a"] });
  t.throws(() => parseProcess({ args: ["a"] }, "p.json"), failure("invalid", "p.json: cwd: missing"));
  t.deepEqual(parseResources({ cpu: { quota: -1 }, pids: {} }, "r"), { cpu: { quota: -1 }, pids: {} });
  t.throws(() => parseResources({ cpu: { shares: -1 } }, "r.json"), failure("invalid", "r.json: cpu.shares: expected at least 0, found -1"));
});

test("any JSON either passes as it is or fails with our error", (t) => {
  const template = specTemplate({ rootless: false, uid: 0, gid: 0 });
  const paths = [
    "process",
    "process.user",
    "process.capabilities",
    "mounts",
    "mounts.0",
    "hooks",
    "linux",
    "linux.resources",
    "linux.resources.devices",
    "linux.seccomp",
    "linux.devices",
    "annotations",
    "root",
  ];
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
      try {
        t.is(parseSpec(changed(path, value), "c").ociVersion, template.ociVersion);
      } catch (error) {
        t.true(error instanceof TskataError && error.code === "invalid" && error.message.startsWith("c: "), String(error));
        t.true((error as Error).message.length < 1000);
      }
    }),
    { numRuns: 300 },
  );
});
