/** src/oci/spec-template.ts: the starter config against the one that runc writes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { OCI_VERSION } from "../../src/base/version.ts";
import { parseSpec, type Spec } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { runProgram, temporaryFolder } from "./helpers.ts";

async function ofRunc(t: ExecutionContext, ...flags: string[]): Promise<Spec> {
  const folder = temporaryFolder(t);
  t.is((await runProgram("runc", ["spec", ...flags], { cwd: folder })).code, 0);
  return parseSpec(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")), "runc's config.json");
}

/** runc 1.2 has a cgroup namespace and no ambient capabilities any more; the one installed may be older. */
function comparable(spec: Spec): unknown {
  const copy = structuredClone(spec);
  delete copy.process?.capabilities?.ambient;
  const namespaces = (copy.linux?.namespaces ?? []).filter(({ type }) => type !== "cgroup");
  return { ...copy, ociVersion: "", hostname: "", linux: { ...copy.linux, namespaces } };
}

test("the same container as runc's", async (t) => {
  const ours = specTemplate({ rootless: false, uid: 5, gid: 6 });
  t.deepEqual(comparable(ours), comparable(await ofRunc(t)));
  t.is(ours.ociVersion, OCI_VERSION);
  t.deepEqual(ours.process?.capabilities?.ambient, undefined);
});

test("with --rootless the same user namespace, and no group that is not mapped", async (t) => {
  const theirs = await ofRunc(t, "--rootless");
  const ours = specTemplate({ rootless: true, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 });
  t.deepEqual(ours.linux?.uidMappings, theirs.linux?.uidMappings);
  t.deepEqual(ours.linux?.gidMappings, theirs.linux?.gidMappings);
  t.true(ours.linux?.namespaces?.some(({ type }) => type === "user"));
  const pts = (spec: Spec): unknown => spec.mounts?.find(({ destination }) => destination === "/dev/pts");
  t.deepEqual(pts(ours), pts(theirs));
});

test("a template changed by its caller leaves the next one as it was", (t) => {
  const options = { rootless: false, uid: 0, gid: 0 };
  const before = JSON.stringify(specTemplate(options));
  const spec = specTemplate(options);
  spec.mounts?.pop();
  spec.mounts?.[1]?.options?.push("ro");
  spec.linux?.namespaces?.pop();
  t.is(JSON.stringify(specTemplate(options)), before);
});
