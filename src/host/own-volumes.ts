/**
 * Which binds of a container are volumes of the pod's own, and through which folder each is shown. The guest keeps what it knows of such a folder,
 * so all of the pod must see it in one place: one mount on the host and one path in the guest, whichever container has it, whole or a folder of it.
 *
 * Folders are compared by where they are on their filesystem, not by name: kubelet gives a `subPath` as a bind mount elsewhere.
 */
import { closeSync, openSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { bindSource, isBind, isSlave } from "../oci/bind.ts";
import type { Bundle } from "../oci/bundle.ts";
import type { OwnVolume } from "../oci/guest-spec.ts";
import { namedAsOwn, OWN_VOLUMES, refuseOwn } from "../oci/own-volumes.ts";
import { type MountEntry, readMounts } from "./mount-table.ts";

/** A folder by where it is on its filesystem. */
interface Folder {
  readonly device: string;
  readonly path: string;
}

/** One that the host shows at `shown`, by `mount`. */
interface ShownFolder extends Folder {
  readonly shown: string;
  readonly mount: MountEntry;
}

/** A volume that the pod has by now. */
export interface PodVolume extends Folder {
  /** Its name, where it is the pod's own. */
  readonly own: string | undefined;
}

interface Own extends Folder {
  readonly name: string;
  /** Of the host's folder; none where the pod has it. */
  readonly source: string | undefined;
}

interface Bind {
  readonly index: number;
  readonly source: string;
  readonly named: boolean;
  readonly slave: boolean;
}

/** kubelet's annotation, by way of containerd, of whose pod it is. */
const POD_UID = "io.kubernetes.cri.sandbox-uid";

/** By the index of the bind. `warn` hears of what the annotation names and is a volume like any other all the same. */
export function ownVolumes(
  bundle: Bundle,
  volumes: () => readonly PodVolume[],
  warn: (message: string) => void,
  hostMounts: () => readonly MountEntry[] = readMounts,
): Map<number, OwnVolume> {
  const { mounts = [], annotations = {} } = bundle.spec;
  const sources = folderBinds(bundle, namedAsOwn(mounts, annotations));
  // Most containers bind files alone, and a host may have thousands of mounts.
  if (sources.length === 0) return new Map();
  const [ofPod, table] = [volumes(), hostMounts()];
  const binds = sources.flatMap((bind) => {
    const folder = shownFolder(bind.source, table);
    return folder === undefined ? [] : [{ ...bind, folder }];
  });
  const live: Folder[] = [...ofPod.filter(({ own }) => own === undefined), ...binds.filter(({ slave }) => slave).map(({ folder }) => folder)];
  const own: Own[] = ofPod.flatMap(({ own: name, ...folder }) => (name === undefined ? [] : [{ ...folder, name, source: undefined }]));
  const wanted = binds.flatMap((bind) => (bind.slave ? [] : (emptyDirOf(bind.folder, annotations[POD_UID], table) ?? (bind.named ? bind.folder : []))));
  // The outermost first: who has a folder of another's volume has it there.
  for (const folder of wanted.toSorted((one, other) => one.path.length - other.path.length)) {
    if (own.some((other) => isIn(folder, other)) || !mayBeOwn(folder, [...live, ...own], table)) continue;
    own.push({ device: folder.device, path: folder.path, name: nameOf(folder), source: folder.shown });
  }
  const found = new Map<number, OwnVolume>();
  for (const { index, folder, slave, named } of binds) {
    const volume = own.find((other) => isIn(folder, other));
    if (volume !== undefined && !slave && isPlain(folder, table)) {
      found.set(index, { name: volume.name, source: volume.source, below: relative(volume.path, folder.path) });
    } else if (named) {
      const why = "the host has a mount in it or shows it read-only, or a container of the pod has had it, or a folder of it, as such a one";
      warn(`annotation ${OWN_VOLUMES}: "${mounts[index]?.destination}" is a volume like any other: ${why}`);
    }
  }
  return found;
}

/** What has been placed for the pod's containers, in the mount namespace of its sandbox process. */
export function volumesOfPod(sandboxPid: number, sharedFolder: string): PodVolume[] {
  let table: MountEntry[];
  try {
    table = readMounts(sandboxPid);
  } catch {
    return []; // it has gone: whoever enters the pod says so
  }
  return table.flatMap(({ device, root, point }) => {
    // <file server>/<container>/own/<name> or …/mounts/<n>: src/oci/guest-spec.ts
    const [, , kind, name, more] = point.startsWith(`${sharedFolder}/`) ? point.slice(sharedFolder.length + 1).split("/") : [];
    if (name === undefined || more !== undefined || (kind !== "own" && kind !== "mounts")) return [];
    return [{ device, path: root, own: kind === "own" ? name : undefined }];
  });
}

function folderBinds({ spec, folder: bundleFolder }: Bundle, named: ReadonlySet<number>): Bind[] {
  return (spec.mounts ?? []).flatMap((mount, index) => {
    const source = bindSource(mount, bundleFolder);
    const kind = isBind(mount) ? kindOf(source) : undefined;
    if (named.has(index) && kind === "file") refuseOwn(mount.destination, "is a file: a volume of the pod's own is a folder");
    return kind === "folder" ? [{ index, source, named: named.has(index), slave: isSlave(mount) }] : [];
  });
}

/** None where there is nothing to be found: guestSpec says so. */
function kindOf(path: string): "folder" | "file" | undefined {
  try {
    return statSync(path).isDirectory() ? "folder" : "file";
  } catch {
    return undefined;
  }
}

/** O_PATH of <fcntl.h>, which node does not name. */
const O_PATH = 0o10000000;

/** With symlinks resolved; none where the mount table does not have its mount (any more). */
function shownFolder(path: string, table: readonly MountEntry[]): ShownFolder | undefined {
  const fd = openSync(path, O_PATH);
  try {
    const shown = readlinkSync(`/proc/self/fd/${fd}`);
    const id = Number(/^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1]);
    const mount = table.find((entry) => entry.id === id);
    if (mount === undefined || !isAtOrBelow(shown, mount.point)) return undefined;
    return { device: mount.device, path: join(mount.root, relative(mount.point, shown)), shown, mount };
  } finally {
    closeSync(fd);
  }
}

/** kubelet's folder of the emptyDir that this is, or is in: by its own name, or by one that another mount gives it. */
function emptyDirOf(folder: ShownFolder, podUid: string | undefined, table: readonly MountEntry[]): ShownFolder | undefined {
  const showing = table.filter(({ device, root }) => isIn(folder, { device, path: root }));
  for (const name of [folder.shown, ...showing.map(({ root, point }) => join(point, relative(root, folder.path)))]) {
    const whole = emptyDirIn(name, podUid);
    const found = whole === undefined || kindOf(whole) !== "folder" ? undefined : shownFolder(whole, table);
    // What is seen by that name may be something else: another mount's, by now or in between.
    if (found !== undefined && !found.mount.readonly && isIn(folder, found)) return found;
  }
  return undefined;
}

/** …/<pod's uid>/volumes/kubernetes.io~empty-dir/<name>: the outermost, since what is below is the container's to name. */
function emptyDirIn(path: string, podUid: string | undefined): string | undefined {
  const parts = path.split("/");
  const at = parts.findIndex((part, index) => part === "volumes" && parts[index + 1] === "kubernetes.io~empty-dir" && (parts[index + 2] ?? "") !== "");
  if (at < 1 || (podUid !== undefined && podUid !== "" && parts[at - 1] !== podUid)) return undefined;
  return parts.slice(0, at + 3).join("/");
}

/** Not where a part of it is a volume that the host may change, or is another's own: one folder would be two in the guest. */
function mayBeOwn(folder: ShownFolder, others: readonly Folder[], table: readonly MountEntry[]): boolean {
  return isPlain(folder, table) && !others.some((other) => isIn(other, folder));
}

/** No mount of the host's is in it, and the host lets it be written: an own volume is the folder and nothing else. */
function isPlain({ shown, mount }: ShownFolder, table: readonly MountEntry[]): boolean {
  return !mount.readonly && !table.some(({ point }) => point !== shown && isAtOrBelow(point, shown));
}

/** The same folder has the same name, whatever it is called on the host. */
function nameOf({ shown }: ShownFolder): string {
  const { dev, ino } = statSync(shown, { bigint: true });
  return `${dev.toString(16)}-${ino}`;
}

function isIn(one: Folder, other: Folder): boolean {
  return one.device === other.device && isAtOrBelow(one.path, other.path);
}

function isAtOrBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);
}
