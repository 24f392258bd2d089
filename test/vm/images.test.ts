/** Real programs from a Debian root filesystem: package manager, compiler, git, interpreters, a database server. */
import { join } from "node:path";
import test from "ava";
import { debianRootfs, overlayOf } from "../helpers/debian.ts";
import { describe, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("images");
const limitMs = 900_000; // an emulated machine compiles slowly
let unmount: () => void = () => {};

test.before("a Debian container", async (t) => {
  t.timeout(limitMs);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["sleep", "1000000"];
    const all = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "MKNOD", "SYS_CHROOT", "SETFCAP"].map(
      (name) => `CAP_${name}`,
    );
    spec.process.capabilities = { bounding: all, effective: all, permitted: all };
    spec.process.env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"];
    spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "mode=1777"] });
  });
  unmount = overlayOf(debianRootfs(), bundle);
  await scratch.create("debian", bundle);
  await scratch.ok(["start", "debian"]);
  t.true(bundle.startsWith(scratch.folder) && join(bundle, "rootfs") !== "");
});

test.after.always("clean up", async () => {
  await scratch.tskata(["delete", "--force", "debian"]);
  unmount();
  await scratch.cleanUp();
});

async function sh(line: string): Promise<string> {
  const outcome = await scratch.exec("debian", ["sh", "-ec", line], { timeoutMs: limitMs });
  if (outcome.code !== 0) throw new Error(`${line}: ${describe(outcome)}\n${scratch.logs()}`);
  return outcome.stdout;
}

test.serial("apt-get install", async (t) => {
  t.timeout(limitMs);
  await sh("apt-get install -y --no-install-recommends /hello.deb");
  t.is(await sh("hello"), "Hello, world!\n");
  t.regex(await sh("dpkg -s hello"), /Status: install ok installed/);
});

test.serial("a C compile", async (t) => {
  t.timeout(limitMs);
  const source = '#include <stdio.h>\nint main(void) { printf("compiled %d\\n", 6 * 7); return 0; }\n';
  t.is(await sh(`mkdir -p /src && cd /src && printf '%s' '${source}' >a.c && gcc -O1 -Wall a.c -o a && ./a`), "compiled 42\n");
});

test.serial("a git clone of a local repository", async (t) => {
  t.timeout(limitMs);
  const identity = "git config --global user.email a@example.org && git config --global user.name a";
  await sh(`${identity} && git init -q /repo && cd /repo && for i in $(seq 50); do echo $i >f$i; done && git add . && git commit -qm one`);
  t.is(await sh("git clone -q /repo /clone && cd /clone && git status --porcelain && git log --format=%s && ls | wc -l"), "one\n50\n");
  t.is(await sh("git -C /clone fsck --full 2>&1 | grep -v '^notice' || true"), "");
});

test.serial("node and python programs", async (t) => {
  t.timeout(limitMs);
  const script = "const fs = require('fs'); fs.writeFileSync('/tmp/n', 'x'.repeat(1e6)); console.log(fs.statSync('/tmp/n').size, process.pid > 1)";
  t.is(await sh(`node -e "${script}"`), "1000000 true\n");
  t.is(await sh("python3 -c 'import os, sys; print(sys.version_info[0], sorted(os.listdir(\"/proc/self/ns\"))[0])'"), "3 cgroup\n");
});

test.serial("a Redis server answers a client in the same container, and its file persists", async (t) => {
  t.timeout(limitMs);
  await sh("mkdir -p /data && redis-server --daemonize yes --dir /data --appendonly yes --port 6379 >/dev/null");
  const wait = "for i in $(seq 100); do redis-cli ping 2>/dev/null | grep -q PONG && break; sleep 0.2; done";
  t.is(await sh(`${wait}; redis-cli set key value`), "OK\n");
  t.is(await sh("redis-cli get key"), "value\n");
  t.regex(await sh("redis-benchmark -q -n 500 -t set,get"), /GET: [\d.]+ requests per second/);
  await sh("redis-cli shutdown; sleep 1; redis-server --daemonize yes --dir /data --appendonly yes --port 6379 >/dev/null");
  t.is(await sh(`${wait}; redis-cli get key`), "value\n");
});
