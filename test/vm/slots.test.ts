/** Devices that come after boot: a machine's placeholders are given an identity, and the guest binds its drivers to them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { scriptedGuest } from "../../scripts/lib/scripted-guest.ts";
import { distFolder } from "../../scripts/lib/steps.ts";
import { startKvm } from "../../src/hypervisor/kvm/kvm.ts";
import type { Machine } from "../../src/hypervisor/machine.ts";
import { native, type VirtioDevice } from "../../src/native.ts";
import { driver, hangLimitMs } from "../helpers/tskata.ts";

/** QEMU's microvm has no slots that a device could be given later. */
const onKvm = driver() === "kvm" ? test.serial : test.serial.skip;

const SECTOR = 512;
const PLACEHOLDERS = 4;

/** The guest tries a slot until it is more than a placeholder, then uses what it finds. */
const SCRIPT = `
bb=/bin/busybox
$bb mount -t sysfs none /sys
$bb mount -t proc none /proc
bind() { echo "$1" 2>/dev/null >/sys/bus/platform/drivers/virtio-mmio/bind; }
if bind virtio-mmio.5; then echo "a placeholder was bound"; else echo "nothing to bind yet"; fi
until bind virtio-mmio.5; do sleep 1; done
echo "the disk says $($bb head -c 14 /dev/vda)"
$bb printf 'the guest was here' | $bb dd of=/dev/vda bs=${SECTOR} seek=2 conv=sync,fsync 2>/dev/null
echo "written"
until bind virtio-mmio.6; do sleep 1; done
echo virtio_rng.1 >/sys/class/misc/hw_random/rng_current
echo "it is $($bb cat /sys/class/misc/hw_random/rng_current)"
echo "random bytes: $($bb head -c 4096 /dev/hwrng | $bb wc -c)"
$bb grep virtio /proc/interrupts
reboot -f
`;

interface Guest {
  readonly machine: Machine;
  readonly folder: string;
  console(): string;
  /** Until the console has it; the machine's end ends the wait. */
  says(words: string): Promise<void>;
  own(device: VirtioDevice): VirtioDevice;
}

function boot(t: ExecutionContext, script: string): Guest {
  const folder = mkdtempSync(join(tmpdir(), "tskata-slots-"));
  mkdirSync(join(folder, "shared"));
  const devices: VirtioDevice[] = [];
  const own = (device: VirtioDevice): VirtioDevice => {
    devices.push(device);
    return device;
  };
  const log = join(folder, "console.log");
  const machine = startKvm("/dev/kvm", {
    kernel: join(distFolder, "guest/vmlinux"),
    image: scriptedGuest(folder, "guest", script),
    kernelParameters: [],
    vcpus: 2,
    memoryMib: 256,
    vsock: own(native().createVsock({ guestCid: 3, path: join(folder, "vsock"), guestPorts: [] })),
    shared: [{ tag: "tskata", device: own(native().createFs({ root: join(folder, "shared"), tag: "tskata", threads: 1 })) }],
    consoleLog: log,
  });
  let over: string | undefined;
  void machine.ended.then((how) => {
    over = how.what;
  });
  t.teardown(async () => {
    machine.kill();
    await machine.ended;
    for (const device of devices) device.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const console = (): string => readFileSync(log, "utf8").replaceAll("\r", "");
  const says = async (words: string): Promise<void> => {
    const end = Date.now() + hangLimitMs;
    while (!console().includes(words)) {
      if (over !== undefined || Date.now() > end) throw new Error(`the guest never says "${words}" (${over ?? "it runs on"}):\n${console()}`);
      await after(50);
    }
  };
  return { machine, folder, console, says, own };
}

onKvm("a placeholder is given a device while the guest runs, and the guest uses it", async (t) => {
  t.timeout(hangLimitMs);
  const { machine, folder, console, says, own } = boot(t, SCRIPT);
  const path = join(folder, "disk");
  const content = Buffer.alloc(8 * SECTOR);
  content.write("hello, guest!!");
  writeFileSync(path, content);
  await says("nothing to bind yet");

  const disk = own(native().createBlk({ path, readonly: false, id: "late" }));
  t.is(machine.attach(disk), "virtio-mmio.5");
  await says("written");
  t.is(readFileSync(path).toString("latin1", 2 * SECTOR, 2 * SECTOR + 18), "the guest was here");

  t.throws(() => machine.attach(disk), { message: /in a slot already/ });
  const closed = native().createRng();
  closed.close();
  t.throws(() => machine.attach(closed), { message: /closed/ });
  // What was refused has taken no slot.
  t.is(machine.attach(own(native().createRng())), "virtio-mmio.6");
  t.is((await machine.ended).what, "the guest restarted or powered off", console());
  const text = console();
  for (const line of ["nothing to bind yet", "the disk says hello, guest!!", "it is virtio_rng.1", "random bytes: 4096"]) {
    t.true(text.includes(line), `"${line}" in\n${text}`);
  }
  t.notRegex(text, /a placeholder was bound/);
  t.regex(text, /\s10:\s+[1-9].*virtio/, "the disk's interrupts came on the line of slot 5");
});

onKvm("a machine has four placeholders, and they may be taken before the guest looks", async (t) => {
  t.timeout(hangLimitMs);
  const { machine, own, console } = boot(t, "/bin/busybox mount -t sysfs none /sys; /bin/busybox ls /sys/bus/virtio/devices; reboot -f");
  const names = Array.from({ length: PLACEHOLDERS }, () => machine.attach(own(native().createRng())));
  t.deepEqual(names, ["virtio-mmio.5", "virtio-mmio.6", "virtio-mmio.7", "virtio-mmio.8"]);
  t.throws(() => machine.attach(own(native().createRng())), { message: /the machine's 9 device slots are all taken/ });
  t.is((await machine.ended).what, "the guest restarted or powered off", console());
  t.regex(console(), /virtio8/);
});
