/** The testbed itself: what its command prints and how it ends comes back as it is, there is a KVM, and nothing is left of it. */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { pinnedNode, repository } from "../../scripts/lib/steps.ts";
import { runInTestbed, type TestbedOptions, TestbedTimeout } from "../../scripts/testbed.ts";

const LIMIT_MS = 150_000;

interface Printed {
  status: number;
  stdout: Buffer;
  stderr: Buffer;
}

async function printed(options: TestbedOptions): Promise<Printed> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const parts: [Buffer[], Buffer[]] = [[], []];
  stdout.on("data", (part: Buffer) => parts[0].push(part));
  stderr.on("data", (part: Buffer) => parts[1].push(part));
  const { status } = await runInTestbed({ timeoutMs: LIMIT_MS, ...options, stdout, stderr });
  return { status, stdout: Buffer.concat(parts[0]), stderr: Buffer.concat(parts[1]) };
}

/** Of this file's testbeds alone: others may run beside them. */
const folder = mkdtempSync(join(tmpdir(), "tskata-testbed-test-"));
process.env["TMPDIR"] = folder;
test.after.always("clean up", () => rmSync(folder, { recursive: true, force: true }));

/** Folders and processes; killed ones need a moment, their machine's memory is given back first. */
async function leftovers(): Promise<string[]> {
  const processes = (): string[] => readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid && commandOf(pid).includes(folder));
  for (let left = 50; left > 0 && processes().length > 0; left--) await after(100);
  return [...readdirSync(folder).filter((name) => name.startsWith("tskata-testbed-")), ...processes().map(commandOf)];
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return ""; // gone meanwhile
  }
}

test.beforeEach((t) => t.timeout(2 * LIMIT_MS));

test.serial("status, stdout and stderr of the command, byte for byte", async (t) => {
  const bytes = 'process.stdout.write(Buffer.from(Array.from({length: 300000}, (_, i) => i % 256))); process.stderr.write("err\\0or"); process.exitCode = 7';
  const { status, stdout, stderr } = await printed({ command: [pinnedNode, "-e", bytes] });
  t.is(status, 7);
  t.deepEqual(stdout, Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 256)));
  t.is(stderr.toString(), "err\0or");
  t.deepEqual(await leftovers(), []);
});

test.serial("the host's tree at its paths, KVM, cgroup v2, a results folder; what is written elsewhere stays in there", async (t) => {
  const results = mkdtempSync(join(tmpdir(), "tskata-results-"));
  t.teardown(() => rmSync(results, { recursive: true, force: true }));
  const script = `set -e
    test -w /dev/kvm; test -c /dev/net/tun; grep -q svm /proc/cpuinfo
    test -e /sys/fs/cgroup/cgroup.subtree_control
    test "$(nproc)" = 2; grep -q '^Cpus_allowed_list:.1-2$' /proc/self/status
    mkdir /tmp/l /tmp/u /tmp/w /tmp/m; mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w overlay /tmp/m
    echo changed >package.json; touch /etc/of-the-testbed
    echo "$PWD $ODD" >/results/file; sleep 1000 & kill -TERM $$`;
  const { status, stderr } = await printed({ command: ["sh", "-c", script], cwd: repository, env: { ODD: "it's" }, results });
  t.is(status, 128 + 15, stderr.toString());
  t.is(readFileSync(join(results, "file"), "utf8"), `${repository} it's\n`);
  t.true(readFileSync(join(repository, "package.json"), "utf8").includes("tskata"));
  t.false(readdirSync("/etc").includes("of-the-testbed"));
});

test.serial("a command that hangs ends at the limit, and the machine with it", async (t) => {
  await t.throwsAsync(printed({ command: ["sleep", "1000"], timeoutMs: 20_000 }), { instanceOf: TestbedTimeout });
  t.deepEqual(await leftovers(), []);
});

for (const { signal, script, how } of [
  { signal: "SIGINT", script: "testbed.ts", how: [128 + 2, null] },
  { signal: "SIGKILL", script: "testbed.ts", how: [null, "SIGKILL"] },
  // What `npm run testbed` starts, and what a job's time limit kills.
  { signal: "SIGTERM", script: "bootstrap.mjs", how: [128 + 15, null] },
] as const) {
  test.serial(`${signal} to ${script} ends the machine too, and leaves nothing`, async (t) => {
    const words = [join(repository, "scripts", script), ...(script === "testbed.ts" ? [] : ["testbed"]), "--", "sh", "-c", "echo up; sleep 1000"];
    const child = spawn(pinnedNode, words, { stdio: ["ignore", "pipe", "ignore"] });
    const end = new Promise((ended) => child.once("exit", (...told) => ended(told)));
    await new Promise((up) => child.stdout.once("data", up));
    child.kill(signal);
    t.deepEqual(await end, [...how]);
    t.deepEqual(await leftovers(), []);
  });
}
