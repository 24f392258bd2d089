/** systemd as process 1 of a container, with the config that podman makes for it (test/fixtures/clients): starts, runs units, stops, is gone. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { configOf, writeClientBundle } from "../helpers/clients.ts";
import { overlayOf, systemdRootfs } from "../helpers/debian.ts";
import { describe, hangLimitMs, type Outcome, outcomeOf, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("systemd");
const limitMs = hangLimitMs * 2;
let unmount: () => void = () => {};
let ended: Promise<Outcome> | undefined;

test.after.always("clean up", async () => {
  await scratch.tskata(["delete", "--force", "system"]);
  unmount();
  await scratch.cleanUp();
});

const AT_BOOT = `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "echo started >/run/at-boot"
ExecStop=/bin/sh -c "echo stopped >/stopped"
`;
const DAEMON = `[Service]
ExecStart=/bin/sleep 100000
MemoryMax=32M
`;

function addUnits(rootfs: string): void {
  const units = join(rootfs, "etc/systemd/system");
  writeFileSync(join(units, "at-boot.service"), AT_BOOT);
  writeFileSync(join(units, "daemon.service"), DAEMON);
  mkdirSync(join(units, "multi-user.target.wants"), { recursive: true });
  symlinkSync("../at-boot.service", join(units, "multi-user.target.wants/at-boot.service"));
}

async function isRunning(): Promise<void> {
  for (;;) {
    const state = await scratch.tskata(["state", "system"]);
    if (state.code === 0 && (JSON.parse(state.stdout) as { status: string }).status === "running") return;
    await after(500);
  }
}

test.serial.before("podman's config for systemd, over Debian's systemd", async (t) => {
  t.timeout(limitMs);
  const config = configOf("podman", "systemd");
  const bundle = writeClientBundle(join(scratch.folder, "system"), config, (path) => mkdirSync(path));
  unmount = overlayOf(systemdRootfs(), bundle);
  addUnits(join(bundle, "rootfs"));
  const child = scratch.spawn(["run", "--bundle", bundle, "system"]);
  ended = outcomeOf(child, { timeoutMs: limitMs * 2 });
  const early = ended.then((outcome) => {
    throw new Error(describe(outcome));
  });
  await Promise.race([early, isRunning()]);
});

test.serial("it comes up whole", async (t) => {
  t.timeout(limitMs);
  // The manager's socket is there a moment after it starts.
  await scratch.sh("system", "until test -S /run/systemd/private; do sleep 0.2; done");
  const state = await scratch.exec("system", ["systemctl", "is-system-running", "--wait"], { timeoutMs: limitMs });
  const failed = await scratch.sh("system", "systemctl --failed --no-legend --plain");
  t.deepEqual([state.stdout.trim(), failed], ["running", ""], describe(state));
  t.is(await scratch.sh("system", "systemctl is-active multi-user.target; systemd-detect-virt; cat /proc/1/comm"), "active\npodman\nsystemd");
});

test.serial("units run: one at the boot, one that is started now, in a cgroup of its own with its limit", async (t) => {
  t.timeout(limitMs);
  t.is(await scratch.sh("system", "cat /run/at-boot"), "started");
  await scratch.sh("system", "systemctl start daemon");
  const group = "/sys/fs/cgroup/system.slice/daemon.service";
  t.is(await scratch.sh("system", `cat /proc/$(cat ${group}/cgroup.procs)/comm ${group}/memory.max`), `sleep\n${32 << 20}`);
  await scratch.sh("system", "systemctl stop daemon");
  t.is(await scratch.sh("system", "systemctl is-active daemon || true"), "inactive");
});

test.serial("its stop signal, SIGRTMIN+3, stops its units and ends it with 0; nothing is left", async (t) => {
  t.timeout(limitMs);
  await scratch.ok(["kill", "system", "RTMIN+3"]);
  const outcome = await ended;
  t.is(outcome?.code, 0, outcome === undefined ? "" : describe(outcome));
  t.is(readFileSync(join(scratch.folder, "system/rootfs/stopped"), "utf8"), "stopped\n");
  unmount();
  unmount = () => {};
  t.deepEqual(await scratch.settledLeftovers(), []);
});
