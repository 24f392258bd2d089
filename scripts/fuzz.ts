/**
 * Fuzzes every parser of another party's bytes, each for a while, two at a time: those of native/fuzz with AddressSanitizer and
 * UndefinedBehaviorSanitizer, and the protocols in TypeScript (fuzz/protocols.ts).
 *
 *   node scripts/fuzz.ts [--seconds 20] [harness…]      queue, vsock, fs, vhost_user, devices, mmio, kvm_exit, keeper, console,
 *                                                       protocols
 *   node scripts/fuzz.ts --keep [harness…]              what reached new code joins the corpus of the repository
 *   build/fuzz/fuzz/<harness>_fuzzer <file>             replays one input
 *
 * native/fuzz/corpus is where each begins. Inputs that reached new code stay in build/fuzz/corpus; those that crashed, hung or leaked go
 * to build/fuzz/crashes, and the exit is 1.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { buildFolder, pinnedNode, repository, run, say, step } from "./lib/steps.ts";

export const HARNESSES = ["queue", "vsock", "fs", "vhost_user", "devices", "mmio", "kvm_exit", "keeper", "console"] as const;
type Harness = (typeof HARNESSES)[number];
const PROTOCOLS = "protocols";
/** As many as the smallest machine this is run on has cores. */
const AT_ONCE = 2;

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

const kept = (name: Harness): string => join(repository, "native/fuzz/corpus", name);
const found = (name: Harness): string => join(FOLDER, "corpus", name);

async function fuzz(executables: string, name: Harness, seconds: number): Promise<void> {
  const crashes = join(FOLDER, "crashes");
  for (const folder of [found(name), kept(name), crashes]) mkdirSync(folder, { recursive: true });
  await run(`fuzz-${name}`, join(executables, `${name}_fuzzer`), [
    `-max_total_time=${seconds}`,
    `-timeout=${HANG_SECONDS}`,
    `-max_len=${MAX_INPUT_BYTES}`,
    "-len_control=0", // scripts: short ones reach nothing
    "-close_fd_mask=2", // the devices' lines about stopped queues; the sanitizers' reports are still written
    "-verbosity=0",
    "-print_final_stats=1",
    `-artifact_prefix=${crashes}/${name}-`,
    found(name), // new ones go to the first
    kept(name),
  ]);
}

/** What the repository has of each: beyond it the largest inputs go, which reach the most, but not much that the others do not. */
const KEPT_FILES = 300;
const KEPT_BYTES = 300 * 1024;

/** The fewest inputs that reach the same code, and no more of them than a repository should hold. */
async function keep(executables: string, name: Harness): Promise<void> {
  for (const folder of [found(name), kept(name)]) mkdirSync(folder, { recursive: true });
  const parameters = ["-set_cover_merge=1", `-max_len=${MAX_INPUT_BYTES}`, "-close_fd_mask=2", "-verbosity=0"];
  await run(`fuzz-${name}`, join(executables, `${name}_fuzzer`), [...parameters, kept(name), found(name)]);
  const inputs = readdirSync(kept(name))
    .map((file) => ({ file, bytes: statSync(join(kept(name), file)).size }))
    .sort((one, other) => one.bytes - other.bytes);
  let total = 0;
  for (const [index, { file, bytes }] of inputs.entries()) {
    total += bytes;
    if (index >= KEPT_FILES || total > KEPT_BYTES) rmSync(join(kept(name), file));
  }
}

async function fuzzProtocols(seconds: number): Promise<void> {
  const script = join(repository, "scripts/fuzz/protocols.ts");
  await run(`fuzz-${PROTOCOLS}`, pinnedNode, ["--disable-warning=ExperimentalWarning", script, "--seconds", String(seconds)]);
}

/** All findings are told; then it throws. */
export async function fuzzAll(seconds: number, names: readonly string[] = [...HARNESSES, PROTOCOLS]): Promise<void> {
  const executables = await buildFuzz("fuzzers");
  const waiting = [...names];
  const failed: string[] = [];
  const worker = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const harness = HARNESSES.find((known) => known === name);
      try {
        await (harness === undefined ? fuzzProtocols(seconds) : fuzz(executables, harness, seconds));
        say(`  ${name}: ${seconds} s, no finding`);
      } catch (error) {
        failed.push(name);
        say(`✖ ${name}: ${error instanceof Error ? error.message : String(error)}`);
        say(`  the input is in ${relative(process.cwd(), join(FOLDER, "crashes"))}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failed.length > 0) throw new Error(`findings in ${failed.join(", ")}`);
}

async function main(): Promise<void> {
  const options = { seconds: { type: "string", default: "20" }, keep: { type: "boolean", default: false } } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const seconds = Number(values.seconds);
  if (!Number.isInteger(seconds) || seconds < 1) throw new Error("--seconds must be a whole number above 0");
  const all: readonly string[] = [...HARNESSES, PROTOCOLS];
  const unknown = positionals.filter((name) => !all.includes(name));
  if (unknown.length > 0) throw new Error(`no such harness: ${unknown.join(", ")}; there are ${all.join(", ")}`);
  const chosen = positionals.length === 0 ? all : positionals;
  if (!values.keep) {
    await step(`fuzz ${chosen.join(", ")}, ${seconds} s each`, () => fuzzAll(seconds, chosen));
    return;
  }
  const executables = await buildFuzz("fuzzers");
  for (const name of HARNESSES.filter((known) => chosen.includes(known))) await step(`keep ${name}`, () => keep(executables, name));
}

if (import.meta.main) await main();
