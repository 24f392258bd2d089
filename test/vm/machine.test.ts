/** The machine a pod gets: its CPUs, memory across the hole below 4 GiB, memory given back when it is free. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setTimeout as after } from "node:timers/promises";
import test from "ava";
import { family } from "../../scripts/lib/processes.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("machine");
test.after.always("clean up", async () => await scratch.cleanUp());

const GIB_KIB = 1024 * 1024;
const CPUS = Math.min(4, availableParallelism());

test.before("one pod of 4 CPUs, or the host's if it has fewer, and 6 GiB", async (t) => {
  t.timeout(hangLimitMs);
  const config = scratch.config("large", "[guest]\ndefault_vcpus = 4\ndefault_memory_mib = 6144\nmax_memory_mib = 8192\n");
  await scratch.running(
    "large",
    (spec) => {
      const shm = spec.mounts.find(({ destination }) => destination === "/dev/shm");
      if (shm !== undefined) shm.options = ["nosuid", "noexec", "nodev", "mode=1777", "size=1g"];
    },
    { TSKATA_CONFIG: config },
  );
});

test.serial("all CPUs are online and a parallel job uses each", async (t) => {
  t.timeout(hangLimitMs);
  t.is(await scratch.sh("large", "nproc"), String(CPUS));
  const job = `for n in $(seq ${CPUS}); do (i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done) & done; wait; grep '^cpu[0-9]' /proc/stat`;
  const busy = (await scratch.sh("large", job)).split("\n").map((line) => Number(line.split(" ")[1]));
  t.is(busy.length, CPUS);
  t.true(
    busy.every((ticks) => ticks > 0),
    `user ticks of each CPU: ${busy.join(" ")}`,
  );
});

test.serial("6 GiB are there, more than lies below the hole", async (t) => {
  t.timeout(hangLimitMs);
  const total = Number(/MemTotal:\s+(\d+) kB/.exec(await scratch.sh("large", "cat /proc/meminfo"))?.[1]);
  t.true(total > 5.8 * GIB_KIB, `${total} KiB`);
});

test.serial("memory that is filled and freed goes back to the host", async (t) => {
  t.timeout(hangLimitMs);
  const before = resident();
  await scratch.sh("large", "dd if=/dev/zero of=/dev/shm/filled bs=1M count=512 2>/dev/null");
  const filled = resident();
  t.true(filled - before > 0.45 * GIB_KIB, `${before} KiB, then ${filled} KiB`);
  await scratch.sh("large", "rm /dev/shm/filled");
  const start = Date.now();
  const enough = (): boolean => filled - resident() >= 0.9 * (filled - before);
  while (!enough() && Date.now() - start < hangLimitMs / 2) await after(200);
  t.true(enough(), `${before} KiB, filled ${filled} KiB, then ${resident()} KiB`);
  t.log(`90 % were back after ${Date.now() - start} ms`);
});

/** KiB of memory that the pod's processes have of the host. */
function resident(): number {
  return family(scratch.pod("large").sandboxPid)
    .map((pid) => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]))
    .reduce((sum, size) => sum + size, 0);
}
