/** src/host/cgroup.ts: hierarchies read from mountinfo, a container's path in them, folders made, joined and removed. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { errorChain } from "../../src/base/errors.ts";
import {
  cgroupMembers,
  cgroupMode,
  cgroupPath,
  createCgroup,
  type Hierarchy,
  hierarchies,
  joinCgroup,
  planCgroup,
  removeCgroup,
} from "../../src/host/cgroup.ts";
import { failure, temporaryFolder } from "./helpers.ts";

const line = (mountPoint: string, type: string, options: string): string => `30 23 0:26 / ${mountPoint} rw,nosuid shared:4 - ${type} ${type} ${options}`;
const root = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw";

test("hierarchies: v1 with its controllers, v2, and nothing else", (t) => {
  const v1 = [line("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"), line("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd")];
  const v2 = line("/sys/fs/cgroup/unified", "cgroup2", "rw,nsdelegate");
  const found = hierarchies([root, ...v1, v2, ""].join("\n"));
  t.deepEqual(found, [
    { mountPoint: "/sys/fs/cgroup/cpu,cpuacct", version: 1, controllers: ["cpu", "cpuacct"] },
    { mountPoint: "/sys/fs/cgroup/systemd", version: 1, controllers: ["xattr", "name=systemd"] },
    { mountPoint: "/sys/fs/cgroup/unified", version: 2, controllers: [] },
  ]);
  t.is(cgroupMode(found), "hybrid");
  t.is(cgroupMode(hierarchies(v1.join("\n"))), "v1");
  t.is(cgroupMode(hierarchies(v2)), "v2");
  t.is(cgroupMode(hierarchies(root)), "none");
});

test("a mount point with spaces, one mounted twice, one with many or no optional fields", (t) => {
  const odd = [
    "1 2 0:3 / /a\\040b\\134c rw - cgroup2 cgroup2 rw",
    "1 2 0:3 / /x rw shared:1 master:2 propagate_from:3 - cgroup none rw,memory",
    "1 2 0:3 / /x rw - cgroup cgroup rw,cpu",
  ];
  t.deepEqual(
    hierarchies(odd.join("\n")).map(({ mountPoint, controllers }) => [mountPoint, ...controllers]),
    [["/a b\\c"], ["/x", "memory"]],
  );
});

test("a hierarchy mounted at several places counts once", (t) => {
  const lines = [
    line("/one", "cgroup", "rw,cpu,cpuacct"),
    line("/two", "cgroup", "ro,cpuacct,cpu"),
    line("/three", "cgroup", "rw,cpu"),
    line("/four", "cgroup2", "rw"),
    line("/five", "cgroup2", "rw,nsdelegate"),
  ];
  t.deepEqual(
    hierarchies(lines.join("\n")).map(({ mountPoint }) => mountPoint),
    ["/one", "/three", "/four"],
  );
});

test("this host's mountinfo, and any text, can be read", (t) => {
  t.notThrows(() => hierarchies());
  fc.assert(fc.property(fc.string(), (text) => t.true(Array.isArray(hierarchies(text)))));
});

test("the path of a container: its own, below /tskata, or the default", (t) => {
  t.is(cgroupPath(undefined, "box", false), "/tskata/box");
  t.is(cgroupPath("", "box", false), "/tskata/box");
  t.is(cgroupPath("/docker/abc", "box", false), "/docker/abc");
  t.is(cgroupPath("/docker//abc/./x/", "box", false), "/docker/abc/x");
  t.is(cgroupPath("mine/abc", "box", false), "/tskata/mine/abc");
});

test("a path that leaves its hierarchy, is its root or is systemd's is refused", (t) => {
  for (const path of ["/../x", "..", "a/../../b"]) t.throws(() => cgroupPath(path, "box", false), failure("invalid", /has "\.\." in it$/), path);
  for (const path of ["/", "//", "/."]) t.throws(() => cgroupPath(path, "box", false), failure("invalid", /is the root cgroup$/), path);
  t.throws(() => cgroupPath("system.slice:docker:abc", "box", false), failure("invalid", /give --systemd-cgroup$/));
});

test("systemd: slices nest by their dashes, the unit is a scope", (t) => {
  const cases: [string | undefined, string][] = [
    ["system.slice:docker:abc", "/system.slice/docker-abc.scope"],
    ["kubepods-besteffort-pod1.slice:cri-containerd:abc", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-abc.scope"],
    [":libpod:abc", "/system.slice/libpod-abc.scope"],
    ["machine.slice::abc", "/machine.slice/abc.scope"],
    ["user.slice:x:deep.slice", "/user.slice/deep.slice"],
    [undefined, "/system.slice/tskata-box.scope"],
    ["", "/system.slice/tskata-box.scope"],
  ];
  for (const [path, expected] of cases) t.is(cgroupPath(path, "box", true), expected);
});

test("systemd: the root slice", (t) => {
  t.is(cgroupPath("-.slice:docker:abc", "box", true), "/docker-abc.scope");
});

test("systemd: what is no slice, prefix and name is refused in runc's words", (t) => {
  for (const path of ["/docker/abc", "system.slice", "a:b", "a.slice:b:", "a.slice:b:c:d", "a.slice:b:..", "a.slice:b/c:d"]) {
    t.throws(
      () => cgroupPath(path, "box", true),
      failure("invalid", `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "${path}" instead`),
    );
  }
  for (const slice of ["system", "a--b.slice", "-a.slice", "--.slice"])
    t.throws(() => cgroupPath(`${slice}:p:n`, "box", true), failure("invalid", `invalid slice name: "${slice}"`));
});

test("no path leaves the hierarchy", (t) => {
  const hostile = fc.oneof(fc.string(), fc.stringMatching(/^[a./:-]{0,12}$/), fc.stringMatching(/^[a.-]{1,6}(\.slice)?:[a./]{0,4}:[a./]{1,6}$/));
  fc.assert(
    fc.property(hostile, fc.boolean(), (path, systemd) => {
      let made: string;
      try {
        made = cgroupPath(path, "box", systemd);
      } catch (error) {
        return t.is((error as { code?: string }).code, "invalid");
      }
      t.true(made.startsWith("/") && made.length > 1);
      t.is(join("/sys/fs/cgroup", made), `/sys/fs/cgroup${made}`);
    }),
    { numRuns: 1000 },
  );
});

/** Plain folders in the place of hierarchies: what is written there are plain files. */
function mounted(t: ExecutionContext, ...controllers: string[][]): Hierarchy[] {
  return controllers.map((names) => ({ mountPoint: temporaryFolder(t), version: names.length === 0 ? 2 : 1, controllers: names }));
}

test("a cgroup is made in every hierarchy; what was there is not counted as made", (t) => {
  const [cpu, unified] = mounted(t, ["cpu"], []);
  if (cpu === undefined || unified === undefined) return t.fail();
  mkdirSync(join(cpu.mountPoint, "a"));
  const { folders, made } = createCgroup("/a/b/c", [cpu, unified]);
  t.deepEqual(folders, [join(cpu.mountPoint, "a/b/c"), join(unified.mountPoint, "a/b/c")]);
  t.deepEqual(made, [...["a/b/c", "a/b", "a"].map((path) => join(unified.mountPoint, path)), ...["a/b/c", "a/b"].map((path) => join(cpu.mountPoint, path))]);
  for (const folder of folders) t.true(statSync(folder).isDirectory());
  t.deepEqual(removeCgroup(made), []);
  t.true(existsSync(join(cpu.mountPoint, "a")));
  t.false(existsSync(join(cpu.mountPoint, "a/b")));
  t.false(existsSync(join(unified.mountPoint, "a")));
  t.deepEqual(createCgroup("/a", [cpu]).made, []);
});

test("a plan names what is going to be made, and makes nothing", (t) => {
  const [cpu, unified] = mounted(t, ["cpu"], []);
  if (cpu === undefined || unified === undefined) return t.fail();
  mkdirSync(join(cpu.mountPoint, "a"));
  const { folders, missing } = planCgroup("/a/b/c", [cpu, unified]);
  t.false(existsSync(join(cpu.mountPoint, "a/b")));
  const { made, folders: used } = createCgroup("/a/b/c", [cpu, unified]);
  t.deepEqual(folders, used);
  t.deepEqual([...missing].sort(), [...made].sort());
  for (const top of [cpu, unified]) {
    const depths = missing.filter((path) => path.startsWith(top.mountPoint)).map((path) => path.length);
    t.deepEqual(
      depths,
      depths.toSorted((one, other) => other - one),
      "deepest first",
    );
  }
  t.deepEqual(planCgroup("/a/b/c", [cpu, unified]).missing, []);
});

test("v2: every parent hands its controllers on", (t) => {
  const [unified] = mounted(t, []);
  const top = unified?.mountPoint ?? "";
  writeFileSync(join(top, "cgroup.controllers"), "cpu memory pids\n");
  createCgroup("/x/y", unified === undefined ? [] : [unified]);
  t.is(readFileSync(join(top, "cgroup.subtree_control"), "utf8"), "+cpu +memory +pids");
});

test("v1: a cpuset is filled from its parent", (t) => {
  const [cpuset] = mounted(t, ["cpuset"]);
  const top = cpuset?.mountPoint ?? "";
  for (const [folder, cpus] of [
    [top, "0-3\n"],
    [join(top, "x"), "\n"],
  ] as const) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "cpuset.cpus"), cpus);
    writeFileSync(join(folder, "cpuset.mems"), "0\n");
  }
  createCgroup("/x", cpuset === undefined ? [] : [cpuset]);
  t.is(readFileSync(join(top, "x/cpuset.cpus"), "utf8"), "0-3");
  t.is(readFileSync(join(top, "x/cpuset.mems"), "utf8"), "0\n");
});

test("when one hierarchy fails, nothing is left in the others", (t) => {
  const [cpu, broken] = mounted(t, ["cpu"], ["cpu"]);
  if (cpu === undefined || broken === undefined) return t.fail();
  writeFileSync(join(broken.mountPoint, "a"), "");
  const error = t.throws(() => createCgroup("/a/b", [cpu, broken]), failure("unavailable", "create the cgroup /a/b"));
  t.regex(errorChain(error), /ENOTDIR/);
  t.false(existsSync(join(cpu.mountPoint, "a")));
});

test("processes are moved in and counted once", async (t) => {
  const [one, two] = [temporaryFolder(t), temporaryFolder(t)];
  await joinCgroup([one, two], 77);
  t.is(readFileSync(join(one, "cgroup.procs"), "utf8"), "77");
  writeFileSync(join(two, "cgroup.procs"), "77\n78\n");
  t.deepEqual(cgroupMembers([one, two, "/no/such"]), [77, 78]);
  await t.throwsAsync(joinCgroup(["/no/such"], 77), failure("unavailable", "move process 77 to the cgroup /no/such"));
});

test("what holds processes is not removed and is told; what is gone already is no trouble", (t) => {
  const folder = temporaryFolder(t);
  const [busy, empty] = [join(folder, "busy"), join(folder, "empty")];
  mkdirSync(busy);
  mkdirSync(empty);
  writeFileSync(join(busy, "cgroup.procs"), "77\n");
  t.deepEqual(removeCgroup([busy, empty, join(folder, "gone")]), [busy]);
  t.true(existsSync(busy));
  t.false(existsSync(empty));
});
