/**
 * What the jail's root shows of the host, and tskata-jail's arguments for it: each file at the path it has on the host, so
 * that a path means the same inside and out.
 *
 * Single files where their names are known. Libraries by the folder of the C library: what QEMU loads by name while it runs
 * (modules, name services, character sets) is in no file's list of needed libraries, so a list of files would be right until
 * the next update of a package. The folder holds what every user of the host may read.
 */
import { existsSync, lstatSync, readFileSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { TskataError } from "../base/errors.ts";
import type { Installation } from "../base/paths.ts";
import type { PodConfig } from "../control/pod-config.ts";
import { KVM_DEVICE } from "./kvm-probe.ts";

export interface JailedMachine {
  readonly kernel: string;
  readonly image: string;
  readonly hypervisor: PodConfig["hypervisor"];
}

type Kind = "read" | "execute" | "write" | "device";

type View = { readonly kind: Kind } | { readonly target: string };

const LINKS_FOLLOWED = 40;
const INTERPRETERS = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
const LIBRARY_CACHE = "/etc/ld.so.cache";
const DEVICES = ["/dev/null", "/dev/zero", "/dev/urandom"];

/** Flags of `tskata-jail sandbox`: parents come before what is below them. */
export function jailViews(files: Installation, machine: JailedMachine, podFolder: string): string[] {
  const views = new Views();
  views.show("write", podFolder);
  for (const file of [files.sandbox, machine.kernel, machine.image]) views.show("read", file);
  for (const file of [files.node, files.addon]) views.show("execute", file);
  for (const folder of libraryFolders()) views.show("execute", folder);
  for (const file of INTERPRETERS) views.showIfThere("execute", file);
  views.showIfThere("read", LIBRARY_CACHE);
  for (const device of DEVICES) views.show("device", device);
  const { hypervisor } = machine;
  if (hypervisor.driver === "kvm") views.show("device", hypervisor.device);
  else showQemu(views, files, hypervisor.qemu);
  if (hypervisor.driver === "qemu" && hypervisor.accelerator === "kvm") views.show("device", KVM_DEVICE);
  const cache = process.env["NODE_COMPILE_CACHE"];
  if (cache !== undefined && cache !== "") views.showIfThere("read", cache);
  return views.flags();
}

/** Its program, the program that confines it, its firmware; where it is not the distribution's, the libraries beside it. */
function showQemu(views: Views, files: Installation, qemu: string): void {
  views.show("execute", qemu);
  views.show("execute", files.jail);
  const prefix = dirname(dirname(qemu));
  for (const folder of ["qemu", "seabios"]) views.showIfThere("read", join(prefix, "share", folder));
  if (prefix === "/usr" || prefix === "/") return;
  for (const folder of ["lib", "lib64"]) views.showIfThere("execute", join(prefix, folder));
}

/** Where this process, which is the same node, has its shared libraries from. */
export function libraryFolders(maps: string = readFileSync("/proc/self/maps", "utf8")): string[] {
  const folders = new Set<string>();
  for (const line of maps.split("\n")) {
    const file = /\s(\/.*\/[^/]*\.so(?:\.[0-9.]+)?)$/.exec(line)?.[1];
    if (file !== undefined) folders.add(dirname(file));
  }
  return [...folders].sort();
}

/** Collects views, and the symbolic links that lead to them. */
export class Views {
  readonly #views = new Map<string, View>();

  showIfThere(kind: Kind, path: string): void {
    if (existsSync(path)) this.show(kind, path);
  }

  show(kind: Kind, path: string): void {
    this.#views.set(this.#resolve(path), { kind });
  }

  /** As realpath(3), but every link on the way is shown, too. */
  #resolve(path: string): string {
    let rest = path.split("/").filter((part) => part !== "");
    let real = "";
    for (let followed = 0; rest.length > 0; ) {
      const [part = "", ...later] = rest;
      rest = later;
      if (part === ".") continue;
      if (part === "..") {
        real = real === "" ? "" : dirname(real).replace(/^\/$/, "");
        continue;
      }
      const at = `${real}/${part}`;
      if (!isLink(at, path)) {
        real = at;
        continue;
      }
      if (++followed > LINKS_FOLLOWED) throw new TskataError("invalid", `"${path}" is behind too many symbolic links`);
      const target = readlinkSync(at);
      this.#views.set(at, { target });
      if (target.startsWith("/")) real = "";
      rest = [...target.split("/").filter((word) => word !== ""), ...rest];
    }
    return real;
  }

  flags(): string[] {
    return [...this.#views]
      .filter(([path, view]) => !this.#isInside(path, view))
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .flatMap(([path, view]) => ("kind" in view ? [`--${view.kind}`, path] : ["--link", path, view.target]));
  }

  /** Shown by a folder's view already. */
  #isInside(path: string, view: View): boolean {
    for (let at = dirname(path); at !== "/"; at = dirname(at)) {
      const folder = this.#views.get(at);
      if (folder !== undefined && "kind" in folder) return !("kind" in view) || folder.kind === view.kind;
    }
    return false;
  }
}

function isLink(path: string, asked: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch (error) {
    throw new TskataError("unavailable", `"${asked}", which the virtual machine's process needs`, { cause: error });
  }
}
