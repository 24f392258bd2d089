/** The root filesystem of Debian's static busybox: for the first run, measurements and tests. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Every applet as a link, the folders a container expects, two users. */
export function busyboxRootfs(folder: string): void {
  for (const name of ["bin", "etc", "root", "tmp", "proc", "sys", "dev", "home/user"]) mkdirSync(join(folder, name), { recursive: true });
  cpSync("/bin/busybox", join(folder, "bin/busybox"));
  const applets = spawnSync("/bin/busybox", ["--list"], { encoding: "utf8" })
    .stdout.split("\n")
    .filter((name) => name !== "");
  for (const applet of applets) if (applet !== "busybox") symlinkSync("busybox", join(folder, "bin", applet));
  writeFileSync(join(folder, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n");
  writeFileSync(join(folder, "etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n");
}
