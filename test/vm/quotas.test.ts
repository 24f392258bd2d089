/** A user's quota on the host's filesystem is the guest's, too: EDQUOT, in a volume and on a root filesystem. Skipped where the host has no quotas. */
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { buildFixture } from "../helpers/fixtures.ts";
import { Fsops } from "../helpers/fsops.ts";
import { HostMounts } from "../helpers/host-mounts.ts";
import { run } from "../helpers/run.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("quotas");
const fsops = new Fsops(scratch);
const hostMounts = new HostMounts();

test.after.always("clean up", async () => {
  await scratch.cleanUp().catch(() => {});
  hostMounts.unmountAll();
  await scratch.cleanUp();
});

/** Why the host's kernel mounts no ext4 with quotas; empty where it does. */
function whyNoQuotas(): string {
  const [image, point] = [fsops.host("try-quota.img"), fsops.host("try-quota")];
  try {
    mountWithQuotas(image, point);
    run("umount", [point]);
    return "";
  } catch (error) {
    return (error as Error).message;
  } finally {
    rmSync(image, { force: true });
  }
}

function mountWithQuotas(image: string, point: string): void {
  run("truncate", ["-s", "32M", image]);
  run("mkfs.ext4", ["-q", "-m", "0", "-O", "quota,^has_journal", "-E", "quotatype=usrquota", image]);
  hostMounts.mount(point, "-o", "loop,usrquota", image);
}

const noQuotas = whyNoQuotas();
// Nothing else would clean up: ava runs no hooks where all tests are skipped.
if (noQuotas !== "") {
  console.log(`Quotas are not tested, this host mounts no ext4 with them (CONFIG_QFMT_V2, loop devices): ${noQuotas}`);
  await scratch.cleanUp();
}
const withQuotas = noQuotas === "" ? test.serial : test.serial.skip;

withQuotas("a user's quota is EDQUOT, after as much as on the host; on a root filesystem by close and fsync", async (t) => {
  t.timeout(hangLimitMs * 2);
  buildFixture("fsops", fsops.program);
  const bundle = await scratch.bundle((spec) => {
    fsops.container(spec, [["limited/rootfs/volume", "/vol"]]);
    spec.process.args = ["sleep", "100000"];
  }, "limited");
  const rootfs = join(bundle, "rootfs");
  renameSync(rootfs, fsops.host("limited-image"));
  mountWithQuotas(fsops.host("quota.img"), rootfs);
  run("cp", ["-a", `${fsops.host("limited-image")}/.`, rootfs]);
  fsops.addTo(rootfs);
  for (const folder of ["volume", "own"]) mkdirSync(join(rootfs, folder), { mode: 0o777 });
  const device = run("findmnt", ["-n", "-o", "SOURCE", rootfs]).trim();
  t.is(run(fsops.program, ["--quota", device, "1000", "2048"]).trim(), "quota: ok");
  await scratch.create("limited", bundle);
  await scratch.ok(["start", "limited"]);
  await fsops.fill(t, "limited", join(rootfs, "volume"), "/vol");
  await scratch.sh("limited", "chmod 777 /own");
  t.regex(await scratch.sh("limited", "fsops --overfill /own/fill 4 1000"), /^write: (ok|EDQUOT)\nclose: EDQUOT$/);
  await scratch.sh("limited", "rm /own/fill");
  const user = await scratch.exec("limited", ["dd", "if=/dev/zero", "of=/own/synced", "bs=4k", "count=1024", "conv=fsync"], { flags: ["--user", "1000"] });
  t.not(user.code, 0);
  t.regex(user.stderr, /Disk quota exceeded|Quota exceeded/);
  await scratch.ok(["delete", "--force", "limited"]);
});
