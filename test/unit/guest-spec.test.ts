/** src/oci/guest-spec.ts: the config the agent gets, what is placed in the shared tree for it, and what is refused. */
import { mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { loadBundle } from "../../src/oci/bundle.ts";
import { type GuestSpec, guestSpec, type OwnVolume, type PodLookup } from "../../src/oci/guest-spec.ts";
import type { Mount, Namespace, Spec } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { failure, temporaryFolder, writeBundle } from "./helpers.ts";

const SHARED = "/run/tskata/shared";
const nobody: PodLookup = () => undefined;

interface Around {
  readonly findInPod?: PodLookup;
  readonly writeback?: boolean;
  readonly own?: ReadonlyMap<number, OwnVolume>;
}

function make(folder: string, change: (spec: Spec) => void = () => {}, { findInPod = nobody, writeback = true, own = new Map() }: Around = {}): GuestSpec {
  const spec = specTemplate({ rootless: false, uid: 0, gid: 0 });
  change(spec);
  const bundle = loadBundle(writeBundle(folder, spec), () => {});
  return guestSpec("box", bundle, { id: "pause", writeback, containerOf: findInPod }, own);
}

function withMounts(t: ExecutionContext, ...mounts: Mount[]): GuestSpec {
  return make(temporaryFolder(t), (spec) => (spec.mounts = mounts));
}

test("the root filesystem is placed, and the config points at it in the guest", (t) => {
  const folder = temporaryFolder(t);
  const { spec, placements, sharedNamespaces } = make(folder, (changed) => Object.assign(changed.root ?? {}, { readonly: true }));
  t.deepEqual(placements, [
    { source: join(folder, "rootfs"), target: "cached/box/rootfs", kind: "directory", recursive: true, readonly: "no", propagation: "private" },
  ]);
  t.deepEqual(spec.root, { path: `${SHARED}/cached/box/rootfs`, readonly: true });
  t.deepEqual(sharedNamespaces, {});
  const through = make(folder, () => {}, { writeback: false });
  t.is(through.placements[0]?.target, "live/box/rootfs", "without writeback it is where volumes are");
  t.is(through.spec.root?.path, `${SHARED}/live/box/rootfs`);
});

test("mounts the guest makes itself stay as they are", (t) => {
  const mounts: Mount[] = [
    { destination: "/proc", type: "proc", source: "proc" },
    { destination: "/tmp", type: "tmpfs", source: "/no/such/name", options: ["size=1m"] },
    { destination: "/x", type: "tmpfs", source: "/etc" },
  ];
  const { spec, placements } = withMounts(t, ...mounts);
  t.deepEqual(spec.mounts, mounts);
  t.is(placements.length, 1);
});

test("binds of folders and files are placed under their index", (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "data");
  mkdirSync(data);
  writeFileSync(join(folder, "hosts"), "");
  const { spec, placements } = make(folder, (changed) => {
    changed.mounts = [
      { destination: "/proc", type: "proc" },
      { destination: "/data", type: "none", source: data, options: ["rbind", "rw"] },
      { destination: "/etc/hosts", type: "bind", source: "hosts", options: ["ro"] },
    ];
  });
  t.deepEqual(placements.slice(1), [
    { source: data, target: "live/box/mounts/1", kind: "directory", recursive: true, readonly: "no", propagation: "private" },
    { source: join(folder, "hosts"), target: "live/box/mounts/2", kind: "file", recursive: false, readonly: "top", propagation: "private" },
  ]);
  t.deepEqual(spec.mounts?.slice(1), [
    { destination: "/data", type: "none", source: `${SHARED}/live/box/mounts/1`, options: ["rbind", "rw"] },
    { destination: "/etc/hosts", type: "bind", source: `${SHARED}/live/box/mounts/2`, options: ["ro"] },
  ]);
});

test("volumes of the pod's own are placed once, by their names; folders of them are found in the guest", (t) => {
  const mounts = ["/work", "/part", "/again", "/had", "/other"].map((destination): Mount => ({ destination, source: "/etc", options: ["rbind", "ro"] }));
  const work = { name: "fe01-7", source: "/var/work" };
  const own = new Map<number, OwnVolume>([
    [0, { ...work, below: "" }],
    [1, { ...work, below: "a/b" }],
    [2, { ...work, below: "" }],
    [3, { name: "fe01-9", source: undefined, below: "" }],
  ]);
  for (const [writeback, tree] of [
    [true, "cached"],
    [false, "live"],
  ] as const) {
    const { spec, placements, podPlacements } = make(temporaryFolder(t), (changed) => (changed.mounts = mounts), { own, writeback });
    const target = `${tree}/pause/own/fe01-7`;
    t.deepEqual(podPlacements, [{ source: "/var/work", target, kind: "directory", recursive: false, readonly: "no", propagation: "private" }]);
    t.deepEqual(
      placements.map((placement) => placement.target),
      [`${tree}/box/rootfs`, "live/box/mounts/4"],
    );
    const sources = [target, `${target}/a/b`, target, `${tree}/pause/own/fe01-9`, "live/box/mounts/4"];
    t.deepEqual(
      spec.mounts,
      mounts.map((mount, index) => ({ ...mount, source: `${SHARED}/${sources[index]}` })),
    );
  }
});

test("propagation: the host's mounts come in where slave is asked for; shared is refused with the field", (t) => {
  const cases: [string[], string][] = [
    [["rbind"], "private"],
    [["rbind", "rprivate"], "private"],
    [["rbind", "rslave"], "slave"],
    [["bind", "slave"], "slave"],
    [["rbind", "rshared", "rslave"], "slave"],
    [["rbind", "rslave", "rprivate"], "private"],
  ];
  for (const [options, propagation] of cases) {
    const { placements } = withMounts(t, { destination: "/d", source: "/etc", options });
    t.is(placements[1]?.propagation, propagation as "slave", options.join());
  }
  for (const option of ["shared", "rshared"]) {
    const mounts: Mount[] = [
      { destination: "/x", type: "proc" },
      { destination: "/d", source: "/etc", options: ["rbind", option] },
    ];
    t.throws(() => withMounts(t, ...mounts), failure("unsupported", new RegExp(`^mounts\\[1\\]\\.options: "${option}" of "/d" is not supported: .*rslave`)));
  }
});

test("the last of ro and rw decides; rro is for the whole tree", (t) => {
  const cases: [string[], string][] = [
    [["rbind"], "no"],
    [["rbind", "ro"], "top"],
    [["rbind", "ro", "rw"], "no"],
    [["rbind", "rw", "ro"], "top"],
    [["rbind", "rro"], "all"],
    [["rbind", "rro", "ro"], "all"],
  ];
  for (const [options, readonly] of cases) {
    const { placements } = withMounts(t, { destination: "/d", source: "/etc", options });
    t.is(placements[1]?.readonly, readonly as "no", options.join());
  }
});

test("a bind whose source is not there is told in runc's words", (t) => {
  t.throws(
    () => withMounts(t, { destination: "/d", type: "bind", source: "/no/such", options: ["rbind"] }),
    failure("not-found", 'error mounting "/no/such" to rootfs at "/d": stat /no/such: no such file or directory'),
  );
  t.throws(() => withMounts(t, { destination: "/d", source: "/etc/passwd/x", options: ["bind"] }), failure("not-found", /: ENOTDIR$/));
});

test("an overlay or a block device of the host is refused", (t) => {
  t.throws(() => withMounts(t, { destination: "/d", type: "overlay", source: "overlay" }), failure("unsupported", /^mount of type "overlay" at "\/d"/));
  const device = readdirSync("/dev")
    .map((name) => `/dev/${name}`)
    .find((file) => isBlockDevice(file));
  if (device === undefined) return t.log("this host shows no block device");
  t.throws(() => withMounts(t, { destination: "/d", type: "ext4", source: device }), failure("unsupported", /is a block device of the host/));
});

function isBlockDevice(file: string): boolean {
  try {
    return statSync(file).isBlockDevice();
  } catch {
    return false;
  }
}

test("only startContainer hooks go to the guest", (t) => {
  const hook = [{ path: "/bin/true" }];
  const all = { prestart: hook, createRuntime: hook, createContainer: hook, startContainer: hook, poststart: hook, poststop: hook };
  t.deepEqual(make(temporaryFolder(t), (spec) => (spec.hooks = all)).spec.hooks, { startContainer: hook });
  t.is(make(temporaryFolder(t), (spec) => (spec.hooks = { poststop: hook })).spec.hooks, undefined);
  t.is(make(temporaryFolder(t)).spec.hooks, undefined);
});

test("the network namespace is the guest's; the others stay", (t) => {
  const path = join(temporaryFolder(t), "netns");
  writeFileSync(path, "");
  const { spec } = make(temporaryFolder(t), (changed) => {
    for (const namespace of changed.linux?.namespaces ?? []) if (namespace.type === "network") namespace.path = path;
  });
  t.deepEqual(
    spec.linux?.namespaces?.map(({ type }) => type),
    ["pid", "ipc", "uts", "mount", "cgroup"],
  );
});

function joining(t: ExecutionContext, namespace: Namespace, findInPod: PodLookup = nobody): GuestSpec {
  return make(
    temporaryFolder(t),
    (spec) => {
      const others = (spec.linux?.namespaces ?? []).filter(({ type }) => type !== namespace.type);
      Object.assign(spec.linux ?? {}, { namespaces: [...others, namespace] });
    },
    { findInPod },
  );
}

test("a namespace of a container in the pod becomes its name", (t) => {
  const find: PodLookup = (pid) => (pid === 77 ? "pause" : undefined);
  for (const type of ["pid", "ipc", "uts"] as const) {
    const { spec, sharedNamespaces } = joining(t, { type, path: `/proc/77/ns/${type}` }, find);
    t.deepEqual(sharedNamespaces, { [type]: "pause" });
    t.deepEqual(spec.linux?.namespaces?.at(-1), { type });
  }
  t.deepEqual(joining(t, { type: "pid", path: "" }, find).sharedNamespaces, {});
});

test("the host's network by any of its names is refused, and one that is not there; that of a container in the pod is not", (t) => {
  const type = "network";
  const named = join(temporaryFolder(t), "default");
  symlinkSync("/proc/self/ns/net", named);
  for (const path of ["/proc/self/ns/net", `/proc/${process.pid}/ns/net`, named]) {
    t.throws(() => joining(t, { type, path }), failure("unsupported", /^host networking is not supported/), path);
  }
  t.throws(() => joining(t, { type, path: "/no/such" }), failure("not-found", "invalid netns path: stat /no/such: no such file or directory"));
  t.notThrows(() => joining(t, { type, path: `/proc/${process.pid}/ns/net` }, () => "pause"));
  t.notThrows(() => joining(t, { type, path: "" }));
});

test("any other namespace path is refused", (t) => {
  const find: PodLookup = () => "pause";
  t.throws(() => joining(t, { type: "pid", path: "/proc/1/ns/pid" }), failure("unsupported", /not of a container in the same pod$/));
  for (const path of ["/proc/77/ns/ipc", "/proc/self/ns/pid", "/run/ns", "/proc/77/ns/pid/", "x/proc/77/ns/pid"]) {
    t.throws(() => joining(t, { type: "pid", path }, find), failure("unsupported", /not of a container in the same pod$/), path);
  }
  for (const type of ["user", "cgroup", "mount", "time"] as const) {
    t.throws(
      () => joining(t, { type, path: `/proc/77/ns/${type}` }, find),
      failure("unsupported", `joining the ${type} namespace /proc/77/ns/${type} is not supported`),
    );
  }
});
