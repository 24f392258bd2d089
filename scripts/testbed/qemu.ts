/**
 * The testbed's QEMU: the one of Debian's backports, out of its packages, never installed on the host.
 *
 * Debian 12's own (7.2) loses a virtual machine in there now and then: on a nested page fault while an event is delivered it saves the
 * outer machine's instruction pointer as the inner one's, and the guest spins or dies. What is kept is named by its version.
 */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, hashOf, run, say, step } from "../lib/steps.ts";
import { newestCached } from "./cached.ts";

const SUITE = "bookworm-backports";
const SOURCE = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian ${SUITE} main\n`;
/** With its firmware; their libraries are Debian 12's, which the installed QEMU needs, too. */
const PACKAGES = ["qemu-system-x86", "qemu-system-data", "seabios"];
const PROGRAM = "usr/bin/qemu-system-x86_64";
const LOG = "testbed-qemu";

/**
 * A fault of QEMU's, taken out of the executables we know. A VMRUN that injects an interrupt delivers it and leaves its vector
 * behind as an exception to come (helper_vmrun: exception_index): should QEMU stop its CPUs before the next #VMEXIT, as it does to empty its buffer
 * of translated code, the guest gets the interrupt once more, interrupts off or not, and waits for a lock it holds. The store goes: the field holds
 * -1 there, for none. By the SHA-256 of the executable.
 */
const REPAIRS: Readonly<Record<string, { readonly offset: number; readonly bytes: string }>> = {
  // 1:10.0.2+ds-2+deb13u1~bpo12+1: a nop where mov %esi,-0x28f0(%rbx) was.
  e8f995668153f7c1af1896a15ed1642848ff5d3722a0ca69d6fd3c9864b1a87e: { offset: 0x7c4f24, bytes: "660f1f440000" },
};

/** In the folder's name behind the version: what was unpacked before a repair was known is made anew. */
const KEY = hashOf({ text: JSON.stringify(REPAIRS) }).slice(0, 16);
const KEPT = new RegExp(`^testbed-qemu-\\d.*-${KEY}$`);

export interface Qemu {
  readonly program: string;
  /** Before all others. */
  readonly arguments: readonly string[];
}

/** Fetched once; without a network, or backports, the installed one. */
export async function testbedQemu(): Promise<Qemu> {
  const folder = kept() ?? (await fetched());
  if (folder === undefined) return { program: "qemu-system-x86_64", arguments: [] };
  const firmware = ["qemu", "seabios"].flatMap((name) => ["-L", join(folder, "usr/share", name)]);
  return { program: join(folder, PROGRAM), arguments: firmware };
}

function kept(): string | undefined {
  const newest = newestCached(KEPT);
  return newest === undefined ? undefined : join(cacheFolder, newest);
}

async function fetched(): Promise<string | undefined> {
  mkdirSync(cacheFolder, { recursive: true });
  const making = mkdtempSync(join(cacheFolder, "making-qemu-"));
  try {
    await step("testbed QEMU", async () => await fetch(making));
    return kept();
  } catch (error) {
    say(`the installed QEMU is used for the testbed, whose machines may hang: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}

async function fetch(making: string): Promise<void> {
  writeFileSync(join(making, "sources.list"), SOURCE);
  for (const name of ["lists", "archives", "tree"]) mkdirSync(join(making, name));
  // Lists of its own: the host's sources stay as they are. Fetched as root, since apt's own user may not write here.
  const options = [
    `Dir::Etc::sourcelist=${making}/sources.list`,
    "Dir::Etc::sourceparts=/dev/null",
    `Dir::State::lists=${making}/lists`,
    "APT::Sandbox::User=root",
  ];
  const apt = [...options, `Dir::Cache::archives=${making}/archives`].flatMap((option) => ["-o", option]);
  await run(LOG, "apt-get", ["-q", ...apt, "update"]);
  await run(LOG, "apt-get", ["-q", ...apt, "download", ...PACKAGES.map((name) => `${name}/${SUITE}`)], { cwd: making });
  const archives = readdirSync(making).filter((name) => name.endsWith(".deb"));
  for (const archive of archives) await run(LOG, "dpkg-deb", ["-x", archive, "tree"], { cwd: making });
  const version = /^qemu-system-x86_(?:1%3a)?([\w.+~-]+?)_/.exec(archives.find((name) => name.startsWith("qemu-system-x86_")) ?? "")?.[1];
  if (version === undefined) throw new Error(`no version in the names of ${archives.join(", ")}`);
  // Firmware for machines that the testbed is not.
  rmSync(join(making, "tree/usr/share/doc"), { recursive: true, force: true });
  repair(join(making, "tree", PROGRAM), version);
  renameSync(join(making, "tree"), join(cacheFolder, `testbed-qemu-${version}-${KEY}`));
}

function repair(program: string, version: string): void {
  const executable = readFileSync(program);
  const known = REPAIRS[createHash("sha256").update(executable).digest("hex")];
  if (known === undefined) {
    say(`QEMU ${version} is used as it is: a guest of the testbed may hang, rarely (docs/testbed.md)`);
    return;
  }
  executable.write(known.bytes, known.offset, "hex");
  writeFileSync(program, executable);
}
