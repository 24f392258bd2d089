/** What tests of files have in common: test/fixtures/fsops.c, which runs on the host and in containers, and what it needs there. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { run } from "./run.ts";
import type { Scratch, Spec } from "./tskata.ts";

const CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID SETUID SETGID MKNOD SETFCAP SYS_ADMIN KILL".split(" ").map((name) => `CAP_${name}`);

type Bind = readonly [source: string, destination: string, ...options: string[]];

export class Fsops {
  readonly #scratch: Scratch;
  /** Where the program is to be built. */
  readonly program: string;

  constructor(scratch: Scratch) {
    this.#scratch = scratch;
    this.program = this.host("fsops");
  }

  /** A path below the test's folder. */
  host(path: string): string {
    return join(this.#scratch.folder, path);
  }

  /** Root's rights, as the host's run of the program has them, and binds of the test's folder. */
  container(spec: Spec, binds: readonly Bind[]): void {
    spec.process.capabilities = { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES };
    spec.linux.resources = { devices: [{ allow: true, access: "rwm" }] };
    for (const [source, destination, ...options] of binds) {
      spec.mounts.push({ destination, type: "bind", source: this.host(source), options: options.length > 0 ? options : ["bind"] });
    }
  }

  addTo(rootfs: string): void {
    run("cp", [this.program, join(rootfs, "bin/fsops")]);
    this.makePlace(join(rootfs, "work"));
  }

  /** A folder for the program to run in. */
  makePlace(folder: string): void {
    mkdirSync(folder, { recursive: true });
    run(this.program, ["--ready", folder]);
  }

  /** What `fsops full` says in a folder of the host's and, the folder gone again, in the same filesystem from the guest. */
  async fill(t: ExecutionContext, id: string, hostFolder: string, guestFolder: string): Promise<void> {
    const place = join(hostFolder, "work");
    mkdirSync(place);
    const expected = run(this.program, [place, "full"]);
    rmSync(place, { recursive: true });
    mkdirSync(place);
    t.is(await this.#scratch.sh(id, `fsops ${guestFolder}/work full`), expected.trim());
    rmSync(place, { recursive: true });
  }
}
