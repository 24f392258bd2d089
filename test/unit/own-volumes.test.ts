/** src/oci/own-volumes.ts and src/host/own-volumes.ts: which binds are volumes of the pod's own, and what is refused. */
import { mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { type MountEntry, readMounts } from "../../src/host/mount-table.ts";
import { ownVolumes, type PodVolume, volumesOfPod } from "../../src/host/own-volumes.ts";
import { loadBundle } from "../../src/oci/bundle.ts";
import { OWN_VOLUMES } from "../../src/oci/own-volumes.ts";
import type { Mount } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { failure, temporaryFolder, writeBundle } from "./helpers.ts";

const EMPTY_DIRS = "pods/uid/volumes/kubernetes.io~empty-dir";

interface Around {
  readonly annotations?: Record<string, string>;
  readonly ofPod?: readonly PodVolume[];
  readonly table?: readonly MountEntry[];
}

/** "source below" of each bind that is an own volume, by its index; what was warned of. */
function decided(t: ExecutionContext, mounts: Mount[], { annotations = {}, ofPod = [], table = readMounts() }: Around = {}): Decided {
  const spec = specTemplate({ rootless: false, uid: 0, gid: 0 });
  const bundle = loadBundle(writeBundle(temporaryFolder(t), { ...spec, mounts, annotations }), () => {});
  const warnings: string[] = [];
  const own = ownVolumes(
    bundle,
    () => ofPod,
    (message) => warnings.push(message),
    () => table,
  );
  const found = [...own].map(([index, { name, source, below }]) => [index, source ?? `the pod's ${name}`, below] as const);
  return { own: found, names: [...own.values()].map(({ name }) => name), warnings };
}

interface Decided {
  readonly own: (readonly [number, string, string])[];
  readonly names: string[];
  readonly warnings: string[];
}

/** A folder of kubelet's pod folders, with some in it. */
function kubelet(t: ExecutionContext): { folder: string; cache: string; inside: string } {
  const folder = temporaryFolder(t);
  const cache = join(folder, EMPTY_DIRS, "cache");
  const inside = join(cache, "a b/c");
  mkdirSync(inside, { recursive: true });
  return { folder, cache, inside };
}

const bind = (source: string, destination: string, ...options: string[]): Mount => ({ destination, source, options: ["rbind", ...options] });

/** Where the host's table has it. */
function placeOf(folder: string, table: readonly MountEntry[] = readMounts()): { device: string; path: string } {
  const mount = table.findLast(({ point }) => folder === point || folder.startsWith(point === "/" ? "/" : `${point}/`));
  if (mount === undefined) throw new Error("no mount");
  return { device: mount.device, path: join(mount.root, folder.slice(mount.point === "/" ? 0 : mount.point.length)) };
}

test("an emptyDir and folders in it are own volumes, by one name and one folder of the host", (t) => {
  const { folder, cache, inside } = kubelet(t);
  symlinkSync(cache, join(folder, "link"));
  const mounts = [bind(cache, "/a"), bind(`${inside}/`, "/b"), bind(join(folder, "link"), "/c", "ro"), bind(cache, "/d", "rprivate", "rro")];
  const { own, names, warnings } = decided(t, mounts);
  t.deepEqual(own, [
    [0, cache, ""],
    [1, cache, "a b/c"],
    [2, cache, ""],
    [3, cache, ""],
  ]);
  t.is(new Set(names).size, 1);
  const { dev, ino } = statSync(cache, { bigint: true });
  t.is(names[0], `${dev.toString(16)}-${ino}`);
  t.deepEqual(warnings, []);
});

test("path components count: names that begin or end like kubelet's are other folders", (t) => {
  const folder = temporaryFolder(t);
  const others = [
    "volumes/kubernetes.io~empty-dir",
    "volumes/kubernetes.io~empty-dir-2/cache",
    "my-volumes/kubernetes.io~empty-dir/cache",
    "volumes/x/kubernetes.io~empty-dir/cache",
    "volumes/kubernetes.io~configmap/cache",
  ];
  for (const other of others) mkdirSync(join(folder, other), { recursive: true });
  const mounts = others.map((other, index) => bind(join(folder, other), `/m${index}`));
  t.deepEqual(decided(t, mounts).own, []);
});

test("the outermost such folder counts: what is in an emptyDir is the container's to name", (t) => {
  const { cache } = kubelet(t);
  const nested = join(cache, "volumes/kubernetes.io~empty-dir/x");
  mkdirSync(nested, { recursive: true });
  t.deepEqual(decided(t, [bind(nested, "/x")]).own, [[0, cache, "volumes/kubernetes.io~empty-dir/x"]]);
});

test("a symlink out of an emptyDir leads to a volume like any other", (t) => {
  const { folder, cache } = kubelet(t);
  mkdirSync(join(folder, "elsewhere"));
  symlinkSync(join(folder, "elsewhere"), join(cache, "out"));
  t.deepEqual(decided(t, [bind(join(cache, "out"), "/x")]).own, []);
});

test("files, sources that are not there, rslave, other volumes and what is no bind are not", (t) => {
  const { folder, cache } = kubelet(t);
  writeFileSync(join(cache, "file"), "");
  const mounts: Mount[] = [
    bind(join(cache, "file"), "/file"),
    bind(join(cache, "absent"), "/absent"),
    bind(folder, "/above"),
    { destination: "/tmp", type: "tmpfs", source: cache },
  ];
  t.deepEqual(decided(t, mounts).own, []);
  for (const option of ["rslave", "slave"]) t.deepEqual(decided(t, [bind(cache, "/a", option)]).own, [], option);
  t.deepEqual(decided(t, [bind(cache, "/a"), bind(cache, "/b", "rslave")]).own, [], "one folder is not kept here and live there");
});

test("where no folder is bound, neither the pod's volumes nor the host's mounts are looked at", (t) => {
  const file = join(temporaryFolder(t), "file");
  writeFileSync(file, "");
  const spec = { ...specTemplate({ rootless: false, uid: 0, gid: 0 }), mounts: [bind(file, "/etc/hosts"), bind(`${file}-none`, "/none")] };
  const bundle = loadBundle(writeBundle(temporaryFolder(t), spec), () => {});
  const never = (): never => t.fail("looked at") as never;
  t.is(ownVolumes(bundle, never, never, never).size, 0);
});

test("another pod's emptyDir is not, where containerd says whose pod it is", (t) => {
  const { cache } = kubelet(t);
  const own = (uid: string): unknown => decided(t, [bind(cache, "/a")], { annotations: { "io.kubernetes.cri.sandbox-uid": uid } }).own;
  t.deepEqual(own("uid"), [[0, cache, ""]]);
  t.deepEqual(own("another"), []);
});

test("with a mount of the host's in it, or shown read-only by the host, it stays a volume like any other", (t) => {
  const { folder, cache, inside } = kubelet(t);
  const table = readMounts();
  const within: MountEntry = { id: 0, device: "0:999", root: "/", point: join(cache, "mounted"), readonly: false, type: "tmpfs", options: [] };
  const mounts = [bind(cache, "/a"), bind(inside, "/b")];
  t.deepEqual(decided(t, mounts, { table: [...table, within] }).own, []);
  t.is(decided(t, mounts, { table: [...table, { ...within, point: `${cache}-2` }] }).own.length, 2);
  t.deepEqual(decided(t, mounts, { table: table.map((mount) => ({ ...mount, readonly: true })) }).own, []);
  const named = decided(t, [bind(folder, "/x")], { annotations: { [OWN_VOLUMES]: "/x" }, table: [...table, within] });
  t.deepEqual(named.own, []);
  t.regex(named.warnings.join(), /^annotation io\.tskata\.own-volumes: "\/x" is a volume like any other: the host has a mount in it/);
});

test("the annotation names binds by their destinations", (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, "sub"));
  const mounts = [bind(folder, "/a"), bind(join(folder, "sub"), "/b/"), bind("/etc", "/c")];
  const own = (value: string): unknown => decided(t, mounts, { annotations: { [OWN_VOLUMES]: value } }).own;
  t.deepEqual(own("/a"), [
    [0, folder, ""],
    [1, folder, "sub"],
  ]);
  t.deepEqual(own("/b"), [[1, join(folder, "sub"), ""]]);
  t.deepEqual(own("/a/, /b"), own("/a"), "the outermost");
  t.deepEqual(decided(t, mounts).own, []);
});

test("what the annotation cannot have is refused by name", (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, "file"), "");
  const mounts = [
    bind(folder, "/data"),
    bind(join(folder, "file"), "/etc/file"),
    bind(folder, "/slave", "rslave"),
    bind(folder, "/ro", "ro"),
    { destination: "/tmp", type: "tmpfs" },
  ];
  const cases: [string, string][] = [
    ["/nowhere", '"/nowhere" is the destination of no bind mount of the container'],
    ["/data,/nowhere", '"/nowhere" is the destination of no bind mount of the container'],
    ["/tmp", '"/tmp" is the destination of no bind mount of the container'],
    ["data", '"data" is not an absolute path; expected destinations with commas between them'],
    ["", '"" is not an absolute path; expected destinations with commas between them'],
    ["/data,", '"" is not an absolute path; expected destinations with commas between them'],
    ["/etc/file", `"/etc/file" is a file: a volume of the pod's own is a folder`],
    ["/slave", `"/slave" is mounted "rslave": what the host mounts in it is the host's change`],
    ["/ro", '"/ro" is mounted read-only: who writes it is not the pod'],
  ];
  for (const [value, message] of cases) {
    t.throws(() => decided(t, mounts, { annotations: { [OWN_VOLUMES]: value } }), failure("invalid", `annotation io.tskata.own-volumes: ${message}`), value);
  }
});

test("what the pod has as its own is that, whole or in part; what it has otherwise stays so", (t) => {
  const { folder, cache, inside } = kubelet(t);
  const had = (path: string, own?: string): PodVolume => ({ ...placeOf(path), own });
  t.deepEqual(decided(t, [bind(inside, "/a")], { ofPod: [had(cache, "known")] }).own, [[0, "the pod's known", "a b/c"]]);
  t.deepEqual(decided(t, [bind(folder, "/a")], { ofPod: [had(folder, "known")] }).own, [[0, "the pod's known", ""]], "neither named nor an emptyDir");
  t.deepEqual(decided(t, [bind(folder, "/a", "rslave")], { ofPod: [had(folder, "known")] }).own, []);
  const named = { annotations: { [OWN_VOLUMES]: "/a" } };
  t.deepEqual(decided(t, [bind(folder, "/a")], { ...named, ofPod: [had(inside, "known")] }).own, [], "a part of it is another own volume");
  for (const path of [cache, inside]) {
    const { own, warnings } = decided(t, [bind(cache, "/a")], { ...named, ofPod: [had(path)] });
    t.deepEqual(own, [], path);
    t.is(warnings.length, 1);
  }
  t.deepEqual(decided(t, [bind(cache, "/a")], { ofPod: [had(folder)] }).own, [[0, cache, ""]], "who sees it from above sees what the host does");
});

test("the pod's volumes are read from the mounts of its sandbox process", (t) => {
  t.deepEqual(volumesOfPod(process.pid, join(temporaryFolder(t), "shared")), []);
  t.deepEqual(volumesOfPod(2 ** 22 - 1, "/"), [], "one that has gone");
});
