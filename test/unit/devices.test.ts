/** The addon's device factories: what they make, and that what is wrong is said. How devices behave is test/device's. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { native } from "../../src/native.ts";

test("every device can be made and closed", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tskata-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "disk");
  writeFileSync(path, Buffer.alloc(8192));
  const fd = openSync(path, "r+");
  const devices = [
    native().createBlk({ path, readonly: true, id: "serial" }),
    native().createBlk({ fd, readonly: false, id: "" }),
    native().createRng(),
    native().createBalloon(),
    native().createPmem({ guestAddress: 1n << 32n, size: 8192n, fd }),
  ];
  t.deepEqual(
    devices.map(({ kind }) => kind),
    ["blk", "blk", "rng", "balloon", "pmem"],
  );
  for (const device of devices) device.close();
  t.notThrows(() => closeSync(fd), "the descriptor stays the caller's");
});

test("a balloon's target and what its guest says", (t) => {
  const balloon = native().createBalloon();
  native().setBalloonTarget(balloon, 1000);
  t.is(native().balloonActual(balloon), 0);
  const rng = native().createRng();
  t.throws(() => native().setBalloonTarget(rng, 1), { message: "not a balloon device" });
  for (const device of [balloon, rng]) device.close();
  t.throws(() => native().balloonActual(balloon), { message: "the device is closed" });
});

test("options that are refused", (t) => {
  t.throws(() => native().createBlk({ path: "/nonexistent", readonly: true, id: "" }), { code: "ENOENT" });
  t.throws(() => native().createBlk({ path: "/dev/null", readonly: true, id: "" }), { message: /regular file or a block device/ });
  t.throws(() => native().createPmem({ guestAddress: 1n, size: 4096n }), { message: /whole pages/ });
  t.throws(() => native().createPmem({ guestAddress: -1n, size: 4096n }), { message: /64 bits/ });
  t.throws(() => native().createNet({ taps: [], mac: new Uint8Array(6), mtu: 1500 }), { message: /1 to 32768 taps/ });
  t.throws(() => native().createNet({ taps: [], mac: new Uint8Array(5), mtu: 1500 }), { message: /6 bytes/ });
  t.throws(() => native().createNet({ taps: [], mac: new Uint8Array(6), mtu: 70_000 }), { message: /at most 65535/ });
});
