/**
 * A container that knows more names than the host's process may hold descriptors of: overlayfs has no file handles, so none is closed. The guest
 * forgets what it does not use, and nobody in the container notices.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { overlayOf } from "../helpers/debian.ts";
import { amount, describe, hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("descriptors");
/** Below what tskata-jail raises, so it stays; a quarter of it is the file server's of root filesystems. */
const LIMIT = 1000;
const FOLDERS = 60;
const FILES = 50;
/** At once, in the container. */
const MAKERS = 4;
const MADE = Math.ceil(200 * amount);
let unmount: () => void = () => {};
let upper = "";

test.before("a container on an overlay with many files", async (t) => {
  t.timeout(hangLimitMs);
  const lower = join(await scratch.bundle(), "rootfs");
  for (let folder = 0; folder < FOLDERS; folder++) {
    mkdirSync(join(lower, `many/${folder}`), { recursive: true });
    for (let file = 0; file < FILES; file++) writeFileSync(join(lower, `many/${folder}/${file}`), `${folder} ${file}\n`);
  }
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sleep", "1000000"];
    spec.root.readonly = false;
  });
  unmount = overlayOf(lower, bundle);
  upper = join(bundle, "upper");
  const outcome = await scratch.tryCreate("many", bundle, [], {}, { through: ["prlimit", `--nofile=${LIMIT}:${LIMIT}`] });
  if (outcome.code !== 0) throw new Error(describe(outcome));
  await scratch.ok(["start", "many"]);
});

test.after.always("clean up", async () => {
  await scratch.tskata(["delete", "--force", "many"]);
  unmount();
  await scratch.cleanUp();
});

function held(): number {
  return readdirSync(`/proc/${scratch.pod("many").sandboxPid}/fd`).length;
}

test.serial("every file of an overlay is found", async (t) => {
  t.timeout(hangLimitMs);
  t.true(FOLDERS * FILES > LIMIT);
  t.is((await scratch.sh("many", "stat -c %n /many/*/* | wc -l")).trim(), String(FOLDERS * FILES));
  t.is((await scratch.sh("many", "cat /many/*/* | wc -w")).trim(), String(2 * FOLDERS * FILES), "and read");
  t.true(held() < LIMIT);
});

test.serial("names are made while others are looked up, each once", async (t) => {
  t.timeout(hangLimitMs);
  const make = (maker: number): string =>
    `(for i in $(seq ${MADE}); do d=/made/${maker}-$i; mkdir $d && echo ${maker} $i >$d/file && ln -s file $d/link && mkfifo $d/fifo || exit 1; done) & pids="$pids $!"`;
  const lines = ["mkdir /made", ...Array.from({ length: MAKERS }, (_, maker) => make(maker))];
  lines.push('(for i in 1 2 3; do stat -c %n /many/*/* >/dev/null || exit 1; done) & pids="$pids $!"', "for pid in $pids; do wait $pid || exit 1; done");
  const outcome = await scratch.exec("many", ["sh", "-c", lines.join("\n")], { timeoutMs: hangLimitMs });
  t.is(outcome.code, 0, describe(outcome));
  t.is(outcome.stderr, "");
  t.is((await scratch.sh("many", "ls -l /made/*/* | wc -l")).trim(), String(3 * MAKERS * MADE));
});

test.serial("what was written reaches the host whole", async (t) => {
  t.timeout(hangLimitMs);
  await scratch.ok(["delete", "--force", "many"]);
  for (let maker = 0; maker < MAKERS; maker++) {
    for (let i = 1; i <= MADE; i++) t.is(readFileSync(join(upper, `made/${maker}-${i}/file`), "utf8"), `${maker} ${i}\n`);
  }
});

test.serial("the limit of descriptors is raised for a pod, unless it is less than programs have", async (t) => {
  t.timeout(hangLimitMs);
  const limitOf = async (id: string, most: number): Promise<string> => {
    const bundle = await scratch.sharedBundle();
    const outcome = await scratch.tryCreate(id, bundle, [], {}, { through: ["prlimit", `--nofile=${most}:${most}`] });
    t.is(outcome.code, 0, describe(outcome));
    const [line = ""] = readFileSync(`/proc/${scratch.pod(id).sandboxPid}/limits`, "utf8").match(/^Max open files.*$/m) ?? [];
    await scratch.ok(["delete", "--force", id]);
    return line.split(/ {2,}/).slice(1, 3).join(" ");
  };
  const most = 2 ** 20;
  // Root in a container of a host's may have no CAP_SYS_RESOURCE.
  const mayRaise = spawnSync("prlimit", ["--nofile=4096:4096", "prlimit", `--nofile=${most}:${most}`, "true"]).status === 0;
  t.is(await limitOf("raised", 4096), mayRaise ? `${most} ${most}` : "4096 4096");
  t.is(await limitOf("kept", 512), "512 512");
});
