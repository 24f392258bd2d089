/** src/host/mount-table.ts: what /proc/PID/mountinfo says. */
import test from "ava";
import { parseMounts, readMounts } from "../../src/host/mount-table.ts";

test("mountinfo: names with spaces, roots, read-only mounts and filesystems", (t) => {
  const text = [
    "36 35 98:0 /mnt1\\040x /mnt2\\134y rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
    "37 35 0:30 / /ro ro - tmpfs tmpfs rw",
    "38 35 0:31 / /super rw shared:1 master:2 - iso9660 /dev/sr0 ro",
    "",
  ].join("\n");
  t.deepEqual(
    parseMounts(text).map(({ id, device, root, point, readonly, type }) => [id, device, root, point, readonly, type]),
    [
      [36, "98:0", "/mnt1 x", "/mnt2\\y", false, "ext3"],
      [37, "0:30", "/", "/ro", true, "tmpfs"],
      [38, "0:31", "/", "/super", true, "iso9660"],
    ],
  );
});

test("this process's own has a root, and each mount a number of its own", (t) => {
  const mounts = readMounts();
  t.true(mounts.some(({ point }) => point === "/"));
  t.is(new Set(mounts.map(({ id }) => id)).size, mounts.length);
});
