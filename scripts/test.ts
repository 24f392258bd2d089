/**
 * `npm test`: the set-up, then lint, types, unit tests, device tests, a while of fuzzing, VM tests, and VM tests on KVM. `npm test -- unit`
 * (or lint, types, device, fuzz, vm, kvm) does one of them, whole; further words go to ava.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { debianRootfs, systemdRootfs } from "../test/helpers/debian.ts";
import { fuzzAll } from "./fuzz.ts";
import { AVA, NODE_OPTIONS, ONE_BY_ONE } from "./lib/ava.ts";
import { pinnedNode, repository, say, step } from "./lib/steps.ts";
import { setup } from "./setup.ts";
import { hostRunsKvm, runInTestbed } from "./testbed.ts";

const modules = join(repository, "node_modules");

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
  const { status, signal, error } = spawnSync(program, args, { cwd: repository, stdio: "inherit", env: { ...process.env, NODE_OPTIONS, ...env } });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${args.slice(0, 3).join(" ")}: ${signal ?? `exit ${status}`}`);
}

function node(script: string, args: readonly string[]): void {
  run(pinnedNode, [join(modules, script), ...args]);
}

function ava(folder: string, args: readonly string[]): void {
  run(pinnedNode, [AVA, `test/${folder}/**/*.test.ts`, ...args]);
}

/** What the VM tests use for the driver when they run on KVM; test/helpers/tskata.ts reads the variable. */
const KVM_DRIVER = { TSKATA_TEST_DRIVER: process.env["TSKATA_TEST_DRIVER"] ?? "kvm" };
/** For a guest of 4 CPUs and 6 GiB in it. */
const KVM_TESTBED = { vcpus: 4, memoryMib: 8192 };
/**
 * What of the VM tests the whole suite runs again in the testbed, where each command takes ten times as long: what the machine, its
 * devices and its end have a part in, and quotas, which its kernel has. `npm run test:kvm` runs all of them.
 */
const KVM_SHORT = ["clock", "crash", "endings", "inotify", "machine", "quotas", "slots", "timers"];
/** Seen: 49 to 77 minutes on two cores. */
const KVM_LIMIT_MS = 7_200_000;

/** The VM tests on KVM: the host's where it works, else the testbed's. */
async function kvm(args: readonly string[]): Promise<void> {
  const hostsOwn = await hostRunsKvm();
  const files = hostsOwn || only === "kvm" ? ["test/vm/**/*.test.ts"] : KVM_SHORT.map((name) => `test/vm/${name}.test.ts`);
  const command = [AVA, ...files, ...ONE_BY_ONE, ...args];
  if (hostsOwn) {
    say("  on this host's own /dev/kvm, no testbed needed");
    run(pinnedNode, command, KVM_DRIVER);
    return;
  }
  ava("testbed", ONE_BY_ONE);
  debianRootfs(); // there is no network in there
  systemdRootfs();
  const env = { NODE_OPTIONS, ...KVM_DRIVER };
  const { status } = await runInTestbed({ command: [pinnedNode, ...command], cwd: repository, env, ...KVM_TESTBED, timeoutMs: KVM_LIMIT_MS });
  if (status !== 0) throw new Error(`VM tests in the testbed: exit ${status}`);
}

/** Of each parser of another party's bytes. */
const FUZZ_SECONDS = 60;

const CPP = "native/**/*.{h,cpp}";

const STAGES: Readonly<Record<string, (args: readonly string[]) => void | Promise<void>>> = {
  lint: () => {
    node("@biomejs/biome/bin/biome", ["ci", "--error-on-warnings", "."]);
    run("clang-format-14", ["--dry-run", "--Werror", ...globSync(CPP, { cwd: repository })]);
    run(pinnedNode, [join(repository, "scripts/imports.ts")]);
    run(pinnedNode, [join(repository, "scripts/protos.ts"), "--check"]);
  },
  types: () => node("typescript/bin/tsc", ["--noEmit", "-p", "."]),
  unit: (args) => ava("unit", args),
  device: (args) => ava("device", args),
  fuzz: () => fuzzAll(FUZZ_SECONDS),
  vm: (args) => ava("vm", [...ONE_BY_ONE, ...args]),
  kvm,
};

await setup();
const [only, ...args] = process.argv.slice(2);
if (only !== undefined && STAGES[only] === undefined) throw new Error(`there is no stage "${only}": ${Object.keys(STAGES).join(", ")}`);
for (const [name, stage] of Object.entries(STAGES)) {
  if (only === undefined || only === name) await step(name, async () => await stage(only === undefined ? [] : args));
}
