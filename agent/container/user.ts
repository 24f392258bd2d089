/** Users and groups of a container: its /etc/passwd and /etc/group, read for names and for HOME. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { TskataError } from "../../src/base/errors.ts";
import type { User } from "../../src/oci/spec.ts";

const SIZE_LIMIT = 4 * 1024 * 1024;
const MAX_ID = 0x7fff_ffff;

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export class UserDatabase {
  readonly #root: string;

  /** `root`: the container's root as a path of the guest. */
  constructor(root: string) {
    this.#root = root;
  }

  /** Numbers as they are given, and then no name, which runc passes over; `username` ("name", "name:group", "uid:group") is `exec --user` with a name in it. */
  resolve(user: User): ResolvedUser {
    const groups = user.additionalGids ?? [];
    if (user.uid !== undefined || user.username === undefined || user.username === "") return { uid: user.uid ?? 0, gid: user.gid ?? 0, groups };
    const [name = "", group] = user.username.split(":");
    const entry = this.#passwd().find((line) => line[0] === name) ?? this.#passwd().find((line) => line[2] === name);
    const uid = idOf(entry === undefined ? name : entry[2]);
    if (uid === undefined) throw new TskataError("invalid", `unable to find user ${name}: no matching entries in passwd file`);
    const gid = group === undefined || group === "" ? (idOf(entry?.[3]) ?? user.gid ?? 0) : this.#group(group);
    const named = entry === undefined || group !== undefined ? [] : this.#groupsOf(entry[0] ?? "");
    return { uid, gid, groups: [...new Set([...groups, ...named])] };
  }

  home(uid: number): string {
    return this.#passwd().find((line) => line[2] === String(uid))?.[5] || "/";
  }

  #group(name: string): number {
    const entry = this.#lines("etc/group").find((line) => line[0] === name);
    const gid = idOf(entry === undefined ? name : entry[2]);
    if (gid === undefined) throw new TskataError("invalid", `unable to find group ${name}: no matching entries in group file`);
    return gid;
  }

  #groupsOf(name: string): number[] {
    return this.#lines("etc/group")
      .filter((line) => line[3]?.split(",").includes(name))
      .flatMap((line) => idOf(line[2]) ?? []);
  }

  #passwd(): string[][] {
    return this.#lines("etc/passwd");
  }

  #lines(file: string): string[][] {
    return readSmall(join(this.#root, file))
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => line.split(":"));
  }
}

/** A number as runc takes it: anything else, an empty field too, must not become root's 0. */
function idOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  return id <= MAX_ID ? id : undefined;
}

/** The container owns these files: no FIFO may hold the agent up, no huge file fill its memory. */
function readSmall(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return "";
  }
  try {
    const facts = fstatSync(fd);
    return facts.isFile() && facts.size <= SIZE_LIMIT ? readFileSync(fd, "utf8") : "";
  } finally {
    closeSync(fd);
  }
}
