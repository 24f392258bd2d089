/** src/oci/features.ts: the features document against runc's and against what the schema takes. */
import test from "ava";
import { OCI_VERSION } from "../../src/base/version.ts";
import { capabilities, features, mountOptions } from "../../src/oci/features.ts";
import { refusedPaths } from "../../src/oci/refusals.ts";
import { parseSpec } from "../../src/oci/spec.ts";
import { runc } from "./helpers.ts";

interface Document {
  readonly ociVersionMin: string;
  readonly ociVersionMax: string;
  readonly hooks: string[];
  readonly mountOptions: string[];
  readonly linux: {
    readonly namespaces: string[];
    readonly capabilities: string[];
    readonly cgroup: object;
    readonly seccomp: { readonly enabled: boolean; readonly actions: string[]; readonly operators: string[]; readonly archs: string[] };
  };
}

const ours = features() as Document;

test("nothing runc knows is missing but what is not supported", async (t) => {
  const theirs = JSON.parse((await runc("features")).stdout) as Document;
  const missing = (a: readonly string[], b: readonly string[]): string[] => a.filter((name) => !b.includes(name));
  t.deepEqual(ours.hooks, theirs.hooks);
  t.deepEqual(missing(theirs.mountOptions, ours.mountOptions), []);
  t.deepEqual(missing(theirs.linux.namespaces, ours.linux.namespaces), []);
  t.deepEqual(missing(theirs.linux.capabilities, ours.linux.capabilities), []);
  t.deepEqual(missing(theirs.linux.seccomp.actions, ours.linux.seccomp.actions), ["SCMP_ACT_NOTIFY"]);
  t.deepEqual(ours.linux.seccomp.operators, theirs.linux.seccomp.operators);
  t.deepEqual(missing(ours.linux.seccomp.archs, theirs.linux.seccomp.archs), []);
  t.deepEqual(missing(Object.keys(theirs.linux.cgroup), Object.keys(ours.linux.cgroup)), []);
});

test("what is refused and what is ignored is named", (t) => {
  const { annotations } = features() as { annotations: Record<string, string> };
  t.deepEqual(annotations["io.tskata.config.refused"]?.split(" "), refusedPaths());
  t.is(annotations["io.tskata.config.ignored"], "process.apparmorProfile process.selinuxLabel linux.mountLabel");
});

test("lists are sorted where runc's are, and without doubles", (t) => {
  for (const list of [ours.mountOptions, ours.linux.namespaces, ours.linux.seccomp.actions, ours.linux.seccomp.operators]) {
    t.deepEqual(list, [...new Set(list)].sort());
  }
  t.deepEqual(ours.mountOptions, mountOptions());
  t.is(new Set(capabilities()).size, 41);
});

test("what is announced is what the schema takes", (t) => {
  t.is(ours.ociVersionMax, OCI_VERSION);
  const { namespaces, seccomp } = ours.linux;
  const spec = {
    ociVersion: ours.ociVersionMin,
    hooks: Object.fromEntries(ours.hooks.map((name) => [name, [{ path: "/bin/true" }]])),
    linux: {
      namespaces: namespaces.map((type) => ({ type })),
      seccomp: {
        defaultAction: "SCMP_ACT_ALLOW",
        architectures: seccomp.archs,
        syscalls: [
          ...seccomp.actions.map((action) => ({ names: ["read"], action })),
          ...seccomp.operators.map((op) => ({ names: ["read"], action: "SCMP_ACT_ALLOW", args: [{ index: 0, value: 0, op }] })),
        ],
      },
    },
  };
  t.notThrows(() => parseSpec(spec, "c"));
});
