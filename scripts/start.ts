/**
 * `npm start`: sets everything up, then runs a busybox container whose output proves where it ran, and shows the timeline
 * of its start. `npm start -- CMD …` runs that command in it instead and exits with its status.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants, release, tmpdir } from "node:os";
import { join } from "node:path";
import { isatty } from "node:tty";
import { busyboxRootfs } from "./lib/busybox.ts";
import { distFolder, say } from "./lib/steps.ts";
import { setup } from "./setup.ts";

const TSKATA = join(distFolder, "bin/tskata");
const MEMORY_LIMIT = 256 * 1024 * 1024;

/** What the container says about itself. */
const PROOF = `echo "guest kernel:   $(uname -r)"
echo "process 1:      $(cat /proc/1/comm), of $(ls -d /proc/[0-9]* | wc -l) processes seen"
echo "root:           $(awk '$2 == "/" { print $1, $3 }' /proc/mounts | tail -n 1)"
echo "memory limit:   $(cat /sys/fs/cgroup/memory.max) bytes"
echo "pids limit:     $(cat /sys/fs/cgroup/pids.max)"
echo "cpu quota:      $(cat /sys/fs/cgroup/cpu.max)"
echo "namespaces:     $(for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done | tr '\\n' ' ')"`;

interface Spec {
  process: { args: string[]; terminal: boolean; env: string[] };
  root: { readonly: boolean };
  linux: { resources: Record<string, unknown> };
}

function makeBundle(folder: string, command: readonly string[]): void {
  busyboxRootfs(join(folder, "rootfs"));
  tskata(["spec", "--bundle", folder], folder);
  const file = join(folder, "config.json");
  const spec = JSON.parse(readFileSync(file, "utf8")) as Spec;
  spec.process.args = command.length > 0 ? [...command] : ["sh", "-c", PROOF];
  spec.process.terminal = command.length > 0 && isatty(0) && isatty(1);
  spec.process.env = [...spec.process.env.filter((entry) => !entry.startsWith("TERM=")), `TERM=${process.env["TERM"] ?? "dumb"}`];
  spec.root.readonly = false;
  spec.linux.resources = { ...spec.linux.resources, memory: { limit: MEMORY_LIMIT }, pids: { limit: 64 }, cpu: { quota: 100_000, period: 100_000 } };
  writeFileSync(file, JSON.stringify(spec));
}

/** Runs the command with our own stdio; the exit code as a shell has it. */
function tskata(args: readonly string[], folder: string): number {
  const { status, signal, error } = spawnSync(TSKATA, ["--root", join(folder, "root"), ...args], { stdio: "inherit" });
  if (error !== undefined) throw error;
  return status ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

await setup();
const command = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "tskata-start-"));
try {
  makeBundle(folder, command);
  if (command.length === 0) say(`\nhost kernel:    ${release()}`);
  process.exitCode = tskata(["run", ...(command.length === 0 ? ["--keep"] : []), "--bundle", folder, "first"], folder);
  if (command.length === 0) {
    say("\nThe start, step by step:");
    tskata(["timeline", "first"], folder);
  }
} finally {
  tskata(["delete", "--force", "first"], folder);
  rmSync(folder, { recursive: true, force: true });
}
