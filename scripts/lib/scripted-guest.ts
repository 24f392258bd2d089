/** A guest image of busybox whose process 1 is a shell script, or a program, instead of the agent: for measurements and tests. */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Makes it beside the folder it is made from, `folder`/`name`, and returns its path. */
export function scriptedGuest(folder: string, name: string, script: string): string {
  return guestOf(folder, name, (node) => writeFileSync(node, `#!/bin/sh\n${script}\n`, { mode: 0o755 }));
}

/** As scriptedGuest, of a program that needs no library. */
export function programGuest(folder: string, name: string, program: string): string {
  return guestOf(folder, name, (node) => copyFileSync(program, node));
}

function guestOf(folder: string, name: string, makeNode: (file: string) => void): string {
  const root = join(folder, name);
  for (const part of ["bin", "dev", "proc", "sys"]) mkdirSync(join(root, part), { recursive: true });
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  for (const applet of ["sh", "reboot", "yes", "sleep", "echo", "tail"]) symlinkSync("busybox", join(root, "bin", applet));
  makeNode(join(root, "bin/node"));
  const image = `${root}.erofs`;
  const { status, stderr } = spawnSync("mkfs.erofs", [image, root], { encoding: "utf8" });
  if (status !== 0) throw new Error(`mkfs.erofs: ${stderr}`);
  return image;
}
