/** Docker's default seccomp profile: a container works under it, and what it refuses is refused by it and by nothing else. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { buildFixture } from "../helpers/fixtures.ts";
import { joinPod, startPod } from "../helpers/pod.ts";
import { hangLimitMs, repository, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("seccomp");
test.after.always("clean up", async () => await scratch.cleanUp());

const { seccomp } = JSON.parse(readFileSync(join(repository, "test/fixtures/docker-seccomp.json"), "utf8")) as { seccomp: unknown };

/** All capabilities that matter here, so that a refusal is the profile's. */
function mighty(spec: Spec): void {
  const all = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_SYSLOG", "CAP_BPF"];
  spec.process.capabilities = { bounding: all, effective: all, permitted: all };
}

test.before("a container with Docker's profile beside one without any", async (t) => {
  t.timeout(hangLimitMs * 2);
  await startPod(scratch, "free", mighty);
  const joined = await joinPod(scratch, "free");
  const bundle = await scratch.running("docker", (spec) => {
    joined(spec);
    mighty(spec);
    spec.linux.seccomp = seccomp;
  });
  for (const folder of [bundle, join(bundle, "../bundle-0")]) buildFixture("syscall", join(folder, "rootfs/bin/syscall"));
});

/** errno of a system call in both containers: [with the profile, without]. */
async function both(call: string): Promise<[string, string]> {
  return [await scratch.sh("docker", `syscall ${call}`), await scratch.sh("free", `syscall ${call}`)];
}

test.serial("ordinary programs work under it", async (t) => {
  t.timeout(hangLimitMs);
  const line =
    "mkdir /t && echo text >/t/f && mv /t/f /t/g && ln -s g /t/h && cat /t/h && chown 1:1 /t/g && (sleep 0.1 & wait) && yes | head -c 100000 | sha1sum";
  t.is(await scratch.sh("docker", `${line} && chroot / true && grep Seccomp: /proc/self/status`), await scratch.sh("free", `${line} && echo 'Seccomp:\t2'`));
});

test.serial("namespaces, mounts, keys and BPF are refused by the profile alone", async (t) => {
  t.timeout(hangLimitMs);
  t.deepEqual(await both("272 0x10000000"), ["1", "0"], "unshare(CLONE_NEWUSER)");
  t.deepEqual(await both("250 0 -3 1"), ["1", "0"], "keyctl(KEYCTL_GET_KEYRING_ID)");
  t.deepEqual(await both("41 40 1 0"), ["1", "0"], "socket(AF_VSOCK)");
  t.deepEqual(await both("41 1 1 0"), ["0", "0"], "socket(AF_UNIX)");
  t.deepEqual(await both("135 0x0020000"), ["0", "0"], "personality(UNAME26)");
  t.deepEqual(await both("135 0x0040000"), ["1", "0"], "personality(ADDR_NO_RANDOMIZE)");
  t.is((await both("435 0 0"))[0], "38", "clone3: programs then take clone");
  const mount = "mkdir -p /m && mount -t tmpfs none /m && umount /m && echo mounted";
  t.regex((await scratch.exec("docker", ["sh", "-c", mount])).stderr, /Operation not permitted|permission denied/);
  t.is(await scratch.sh("free", mount), "mounted");
  t.regex((await scratch.exec("docker", ["unshare", "-m", "true"])).stderr, /Operation not permitted/);
  t.is(await scratch.sh("free", "unshare -m echo new"), "new");
});
