/** src/oci/bundle.ts: a bundle read from disk, its rules beyond the schema, and the place of a JSON error. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { errorChain, TskataError } from "../../src/base/errors.ts";
import { type Bundle, checkProcess, loadBundle, parseJson, readProcessFile, readResources, readSpec } from "../../src/oci/bundle.ts";
import { REFUSED_RESOURCES, refusedPaths } from "../../src/oci/refusals.ts";
import type { Spec } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { failure, runc, temporaryFolder, writeBundle } from "./helpers.ts";

const template = (): Spec => specTemplate({ rootless: false, uid: 0, gid: 0 });

function load(t: ExecutionContext, change: (spec: Spec) => void, warnings: string[] = []): Bundle {
  const spec = template();
  change(spec);
  return loadBundle(writeBundle(temporaryFolder(t), spec), (warning) => warnings.push(warning));
}

const namespaces = (...types: NonNullable<NonNullable<Spec["linux"]>["namespaces"]>[number]["type"][]): NonNullable<Spec["linux"]> => ({
  namespaces: types.map((type) => ({ type })),
});

test("the starter config loads without a warning", (t) => {
  const warnings: string[] = [];
  const folder = writeBundle(temporaryFolder(t), template());
  const bundle = loadBundle(relative(process.cwd(), folder), (warning) => warnings.push(warning));
  t.is(bundle.folder, folder);
  t.is(bundle.rootfs, join(folder, "rootfs"));
  t.deepEqual(bundle.process.args, ["sh"]);
  t.deepEqual(bundle.linux, template().linux ?? {});
  t.deepEqual(warnings, []);
});

test("the root filesystem may be anywhere, but must be a folder", (t) => {
  const elsewhere = temporaryFolder(t);
  t.is(load(t, (spec) => (spec.root = { path: elsewhere })).rootfs, elsewhere);
  t.throws(() => load(t, (spec) => (spec.root = { path: "/no/such" })), failure("not-found", "invalid rootfs: stat /no/such: no such file or directory"));
  t.throws(() => load(t, (spec) => (spec.root = { path: "/etc/passwd" })), failure("invalid", "invalid rootfs: /etc/passwd is not a directory"));
  t.throws(() => load(t, (spec) => delete spec.root), failure("invalid", "root must be specified"));
});

test("no config.json, in runc's words", async (t) => {
  const folder = temporaryFolder(t);
  t.throws(() => loadBundle(folder, () => {}), failure("not-found", `JSON specification file ${join(folder, "config.json")} not found`));
  t.throws(() => loadBundle("/no/such/bundle", () => {}), failure("not-found", /not found$/));
  const { stderr } = await runc("create", "-b", folder, "tskata-unit-none");
  t.regex(stderr, /JSON specification file config\.json not found/);
});

test("a config.json that can't be read says so", (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, "config.json"));
  const error = t.throws(() => readSpec(join(folder, "config.json")), failure("invalid", /^read /));
  t.regex(errorChain(error), /EISDIR/);
});

test("a process needs arguments, in runc's words", (t) => {
  t.throws(() => checkProcess(undefined), failure("invalid", "process property must not be empty"));
  t.throws(() => checkProcess({ cwd: "/" }), failure("invalid", "args must not be empty"));
  t.throws(() => checkProcess({ cwd: "/", args: [] }), failure("invalid", "args must not be empty"));
  t.deepEqual(checkProcess({ cwd: "/", args: ["a"] }), { cwd: "/", args: ["a"] });
});

test("namespaces: a mount and a network one are needed, no type twice, a UTS one for names", (t) => {
  t.throws(() => load(t, (spec) => (spec.linux = namespaces("mount", "uts"))), failure("unsupported", /^host networking is not supported/));
  t.throws(() => load(t, (spec) => (spec.linux = namespaces("network", "uts"))), failure("unsupported", /linux\.namespaces needs "mount"/));
  t.throws(() => load(t, (spec) => (spec.linux = namespaces("pid", "pid"))), failure("invalid", 'duplicated ns "pid" in linux.namespaces'));
  t.throws(
    () => load(t, (spec) => (spec.linux = namespaces("mount", "network"))),
    failure("invalid", "unable to set hostname without a private UTS namespace"),
  );
  const domain = (spec: Spec): void => {
    Object.assign(spec, { hostname: "", domainname: "d", linux: namespaces("mount", "network") });
  };
  t.throws(() => load(t, domain), failure("invalid", "unable to set domainname without a private UTS namespace"));
  t.throws(() => load(t, (spec) => delete spec.linux), failure("invalid", /UTS namespace/));
  t.notThrows(() => load(t, (spec) => Object.assign(spec, { hostname: "", linux: namespaces("mount", "network") })));
});

test("what can't be had in a virtual machine is refused by name", (t) => {
  const linux = (more: object) => (spec: Spec) => Object.assign(spec.linux ?? {}, more);
  const mount = (more: object) => (spec: Spec) => Object.assign(spec.mounts?.[0] ?? {}, more);
  const notify = [{ names: ["read"], action: "SCMP_ACT_NOTIFY" }];
  const cases: [(spec: Spec) => void, RegExp][] = [
    [linux({ seccomp: { defaultAction: "SCMP_ACT_ALLOW", syscalls: notify } }), /^the seccomp action SCMP_ACT_NOTIFY is not supported: /],
    [linux({ seccomp: { defaultAction: "SCMP_ACT_NOTIFY" } }), /^the seccomp action SCMP_ACT_NOTIFY is not supported: /],
    [mount({ options: ["bind", "ridmap"] }), /^mounts\[0\]\.options: ridmap is not supported: /],
  ];
  for (const [change, message] of cases) t.throws(() => load(t, change), failure("unsupported", message));
});

/** A value that asks for something, for each field that is refused. */
const ASKED: Readonly<Record<string, unknown>> = {
  windows: {},
  solaris: {},
  zos: {},
  vm: { kernel: { path: "/k" } },
  "mounts[].uidMappings": [{ containerID: 0, hostID: 0, size: 1 }],
  "mounts[].gidMappings": [{ containerID: 0, hostID: 0, size: 1 }],
  "linux.intelRdt": {},
  "linux.personality.flags": ["X"],
  "linux.seccomp.listenerPath": "/s",
  "linux.seccomp.listenerMetadata": "m",
  "linux.resources.memory.kernel": 1 << 20,
  "linux.resources.memory.kernelTCP": 1 << 20,
  "linux.resources.memory.swappiness": 0,
  "linux.resources.memory.disableOOMKiller": true,
  "linux.resources.memory.useHierarchy": false,
  "linux.resources.cpu.realtimeRuntime": 1,
  "linux.resources.cpu.realtimePeriod": 1,
  "linux.resources.blockIO.leafWeight": 10,
  "linux.resources.blockIO.weightDevice": [{ major: 8, minor: 0, weight: 10 }],
  "linux.resources.network.classID": 1,
  "linux.resources.network.priorities": [{ name: "eth0", priority: 1 }],
  "linux.resources.rdma": { mlx5_1: { hcaHandles: 3 } },
};

/** Puts a value at a path; what must be beside it is put there, too. */
function put(spec: Spec, path: string, value: unknown): void {
  const beside: Readonly<Record<string, object>> = {
    personality: { domain: "LINUX" },
    seccomp: { defaultAction: "SCMP_ACT_ALLOW" },
  };
  const steps = path.split(".");
  let at = spec as Record<string, unknown>;
  for (const step of steps.slice(0, -1)) {
    const key = step.replace("[]", "");
    at[key] ??= step.endsWith("[]") ? [{ ...beside[key] }] : { ...beside[key] };
    at = (step.endsWith("[]") ? (at[key] as unknown[])[0] : at[key]) as Record<string, unknown>;
  }
  at[steps.at(-1) ?? ""] = value;
}

test("every field of the list of refused ones is refused by its name, at its place", (t) => {
  t.deepEqual(Object.keys(ASKED).sort(), refusedPaths().sort());
  for (const [path, value] of Object.entries(ASKED)) {
    const said = t.throws(() => load(t, (spec) => put(spec, path, value)), { instanceOf: TskataError, code: "unsupported" }, path);
    t.true(said?.message.startsWith(`${path.replaceAll("[]", "[0]")} is not supported: `), said?.message);
  }
});

test("update refuses the resources that create refuses", (t) => {
  for (const { path } of REFUSED_RESOURCES) {
    const spec = {} as Spec;
    put(spec, `linux.resources.${path}`, ASKED[`linux.resources.${path}`]);
    const resources = JSON.stringify(spec.linux?.resources);
    t.throws(() => readResources(resources, "r"), failure("unsupported", new RegExp(`^${path.replace("[]", String.raw`\[0\]`)} is not supported: `)), path);
  }
});

test("values that ask for nothing are not refused: Docker sends them", (t) => {
  const resources = {
    memory: { kernel: 0, kernelTCP: -1, disableOOMKiller: false, useHierarchy: true },
    cpu: { realtimeRuntime: 0, realtimePeriod: 0 },
    blockIO: { leafWeight: 0, weightDevice: [] },
    network: { priorities: [] },
    rdma: {},
  };
  t.notThrows(() => load(t, (spec) => Object.assign(spec.linux ?? {}, { resources, seccomp: { defaultAction: "SCMP_ACT_ALLOW", listenerPath: "" } })));
});

test("what needs a namespace of its own is refused without one", (t) => {
  const mappings = [{ containerID: 0, hostID: 1000, size: 1 }];
  const cases: [object, string][] = [
    [{ timeOffsets: { boottime: { secs: 1 } } }, "linux.timeOffsets needs a time namespace in linux.namespaces"],
    [{ uidMappings: mappings }, "linux.uidMappings needs a user namespace in linux.namespaces"],
    [{ gidMappings: mappings }, "linux.gidMappings needs a user namespace in linux.namespaces"],
    [{ ...namespaces("mount", "network", "uts", "user"), gidMappings: mappings }, "a user namespace in linux.namespaces needs linux.uidMappings"],
  ];
  for (const [change, message] of cases) t.throws(() => load(t, (spec) => Object.assign(spec.linux ?? {}, change)), failure("invalid", message));
});

test("a limit that is there twice", (t) => {
  const limit = { type: "RLIMIT_CORE", soft: 1, hard: 1 };
  const rlimits = [limit, { ...limit, type: "RLIMIT_CPU" }, limit];
  t.throws(() => checkProcess({ cwd: "/", args: ["a"], rlimits }), failure("invalid", "process.rlimits: RLIMIT_CORE is there twice"));
});

test("capabilities of newer kernels are told", (t) => {
  const warnings: string[] = [];
  load(t, (spec) => Object.assign(spec.process ?? {}, { capabilities: { bounding: ["CAP_CHOWN", "KILL", "CAP_X"], effective: ["CAP_X", "CAP_Y"] } }), warnings);
  t.deepEqual(warnings, ["process.capabilities: CAP_X, CAP_Y ignored: unknown to this version"]);
});

test("what is ignored is told once each", (t) => {
  const warnings: string[] = [];
  const labels = (spec: Spec): void => {
    Object.assign(spec.process ?? {}, { apparmorProfile: "docker-default", selinuxLabel: "system_u" });
    Object.assign(spec.linux ?? {}, { mountLabel: "m" });
  };
  load(t, labels, warnings);
  t.deepEqual(
    warnings.map((warning) => warning.split(" ")[0]),
    ["process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"],
  );
});

test("process files and resources", (t) => {
  const file = join(temporaryFolder(t), "process.json");
  t.throws(() => readProcessFile(file), failure("not-found", `open ${file}: no such file or directory`));
  writeFileSync(file, '{"cwd": "/", "args": ["ls"]}');
  t.deepEqual(readProcessFile(file), { cwd: "/", args: ["ls"] });
  t.deepEqual(readResources('{"memory": {"limit": 5}}', "stdin"), { memory: { limit: 5 } });
  t.throws(() => readResources("{", "stdin"), failure("invalid", /^stdin is not JSON: line 1, column 2: /));
});

test("a JSON error is told with its line and column", (t) => {
  const cases: [string, string][] = [
    ["", "line 1, column 1: Unexpected end of JSON input"],
    ['{\n  "a": }', "line 2, column 8: Unexpected token '}'"],
    [`{"long": "${"x".repeat(200)}",\n "b": nul,\n "c": "${"y".repeat(200)}"}`, "line 2, column 10: Unexpected token ','"],
    ['{"a": 1', "line 1, column 8: Expected ',' or '}' after property value"],
    ['{"a" 1}', "line 1, column 6: Expected ':' after property name"],
    ['{"a": 1,}', "line 1, column 9: Expected double-quoted property name"],
    ["{'a': 1}", "line 1, column 2: Expected property name or '}'"],
    ["{}\n\n x", "line 3, column 2: Unexpected non-whitespace character after JSON"],
    ["[1,\n2,\n,]", "line 3, column 1: Unexpected token ','"],
    ["[tru", "line 1, column 5: Unexpected end of JSON input"],
  ];
  for (const [text, said] of cases) t.throws(() => parseJson(text, "f"), failure("invalid", `f is not JSON: ${said}`), text);
});

test("a token put into any JSON is found where it was put", (t) => {
  const text = fc.json({ maxDepth: 4 }).map((json) => JSON.stringify(JSON.parse(json), null, 1));
  fc.assert(
    fc.property(text, fc.nat(), (json, seed) => {
      const lines = json.split("\n");
      const line = seed % lines.length;
      lines[line] = `?${lines[line]}`;
      t.throws(() => parseJson(lines.join("\n"), "f"), failure("invalid", new RegExp(`^f is not JSON: line ${line + 1}, column 1: \\S`)));
    }),
  );
});

test("any text is JSON or an error with a place in it", (t) => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json().map((json) => json.slice(0, -1)),
        fc.stringMatching(/^[[\]{}",:0-9eE+\-.ntf \n]*$/),
      ),
      (text) => {
        try {
          t.deepEqual(parseJson(text, "f"), JSON.parse(text));
        } catch (error) {
          const place = /^f is not JSON: line (\d+), column (\d+): /.exec((error as Error).message);
          const line = text.split("\n")[Number(place?.[1]) - 1];
          t.true(line !== undefined && Number(place?.[2]) <= line.length + 1, (error as Error).message);
        }
      },
    ),
  );
});
