/**
 * Fuzzes every parser of a guest's bytes (native/fuzz) with AddressSanitizer and UndefinedBehaviorSanitizer, each for a while:
 *
 *   node scripts/fuzz.ts [--seconds 20] [harness…]      queue, vsock, fs, vhost_user, devices, mmio, kvm_exit
 *   build/fuzz/fuzz/<harness>_fuzzer <file>             replays one input
 *
 * Inputs that reached new code stay in build/fuzz/corpus; those that crashed, hung or leaked go to build/fuzz/crashes, and the exit is 1.
 */
import { mkdirSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { buildFolder, repository, run, say, step } from "./lib/steps.ts";

export const HARNESSES = ["queue", "vsock", "fs", "vhost_user", "devices", "mmio", "kvm_exit"] as const;
type Harness = (typeof HARNESSES)[number];

const FOLDER = join(buildFolder, "fuzz");
const COMPILERS = ["-DCMAKE_C_COMPILER=clang-14", "-DCMAKE_CXX_COMPILER=clang++-14"];
/** An input that takes longer is a finding: a guest must not keep a device's thread. */
const HANG_SECONDS = 20;
const MAX_INPUT_BYTES = 1024;

/** Builds a target of native/fuzz in build/fuzz; returns the folder of the executables. Two builds at once wait for each other. */
export async function buildFuzz(target: "fuzzers" | "device_test"): Promise<string> {
  mkdirSync(FOLDER, { recursive: true });
  const locked = (...command: string[]): Promise<void> => run("fuzz-build", "flock", [join(FOLDER, ".lock"), ...command]);
  await locked("cmake", "-S", join(repository, "native"), "-B", FOLDER, "-G", "Ninja", "-DTSKATA_FUZZ=ON", ...COMPILERS);
  await locked("cmake", "--build", FOLDER, "--target", target);
  return join(FOLDER, "fuzz");
}

async function fuzz(executables: string, name: Harness, seconds: number): Promise<void> {
  const corpus = join(FOLDER, "corpus", name);
  const crashes = join(FOLDER, "crashes");
  for (const folder of [corpus, crashes]) mkdirSync(folder, { recursive: true });
  await run(`fuzz-${name}`, join(executables, `${name}_fuzzer`), [
    `-max_total_time=${seconds}`,
    `-timeout=${HANG_SECONDS}`,
    `-max_len=${MAX_INPUT_BYTES}`,
    "-len_control=0", // scripts: short ones reach nothing
    "-close_fd_mask=2", // the devices' lines about stopped queues; the sanitizers' reports are still written
    "-verbosity=0",
    "-print_final_stats=1",
    `-artifact_prefix=${crashes}/${name}-`,
    corpus,
  ]);
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: { seconds: { type: "string", default: "20" } }, allowPositionals: true });
  const seconds = Number(values.seconds);
  if (!Number.isInteger(seconds) || seconds < 1) throw new Error("--seconds must be a whole number above 0");
  const unknown = positionals.filter((name) => !HARNESSES.some((known) => known === name));
  if (unknown.length > 0) throw new Error(`no such harness: ${unknown.join(", ")}; there are ${HARNESSES.join(", ")}`);
  const chosen = HARNESSES.filter((name) => positionals.length === 0 || positionals.includes(name));
  let executables = "";
  await step("build the fuzzers", async () => {
    executables = await buildFuzz("fuzzers");
  });
  for (const name of chosen) {
    try {
      await step(`fuzz ${name}, ${seconds} s`, () => fuzz(executables, name, seconds));
    } catch (error) {
      say(`✖ ${name}: ${error instanceof Error ? error.message : String(error)}`);
      say(`  the input is in ${relative(process.cwd(), join(FOLDER, "crashes"))}`);
      process.exitCode = 1;
    }
  }
}

if (import.meta.main) await main();
