/** src/hypervisor: QEMU's command line, and the guest kernel's in it. */
import test from "ava";
import { kernelCommandLine } from "../../src/hypervisor/machine.ts";
import { type QemuOptions, qemuArguments } from "../../src/hypervisor/qemu/command-line.ts";

const device = { kind: "fs", close: () => {} } as const;
const options: QemuOptions = {
  ...{ kernel: "/k,1", image: "/i,2", kernelParameters: ["quiet"], vcpus: 3, memoryMib: 256, consoleLog: "console.log" },
  ...{ vsock: { ...device, kind: "vsock" }, accelerator: "tcg", tscKhz: 0, sockets: { vsock: "v,s", shared: ["f", "g,"] } },
  shared: [
    { tag: "live", device },
    { tag: "cached", device },
  ],
};

function valuesOf(args: readonly string[], name: string): string[] {
  return args.flatMap((word, index) => (args[index - 1] === name ? [word] : []));
}

test("commas in paths are doubled in option lists, and only there", (t) => {
  const args = qemuArguments(options);
  t.deepEqual(valuesOf(args, "-kernel"), ["/k,1"]);
  t.true(valuesOf(args, "-drive")[0]?.includes("file=/i,,2,format=raw"));
  const chardevs = valuesOf(args, "-chardev");
  t.true(chardevs.some((words) => words.startsWith("socket,id=vsock,path=v,,s")));
});

test("the console is QEMU's stdout, which is read: a file that QEMU writes would grow with what the guest prints", (t) => {
  const args = qemuArguments(options);
  t.true(valuesOf(args, "-chardev").includes("stdio,id=console,signal=off"));
  t.deepEqual(valuesOf(args, "-serial"), ["chardev:console"]);
  t.false(args.join(" ").includes(options.consoleLog));
});

test("each shared folder is a device by its own socket", (t) => {
  const args = qemuArguments(options);
  const folders = valuesOf(args, "-device").flatMap((words) => /^vhost-user-fs-device,chardev=(\w+),tag=(\w+),/.exec(words)?.slice(1).join(" ") ?? []);
  t.deepEqual(folders, ["fs0 live", "fs1 cached"]);
  for (const socket of ["socket,id=fs0,path=f", "socket,id=fs1,path=g,,"]) t.true(valuesOf(args, "-chardev").includes(socket), socket);
});

test("every device has a slot of its own, and the kernel is told of each", (t) => {
  const args = qemuArguments(options);
  const slots = valuesOf(args, "-device").map((words) => Number(/bus=virtio-mmio-bus\.(\d+)$/.exec(words)?.[1]));
  t.deepEqual(slots, [...slots.keys()]);
  const told = [...(valuesOf(args, "-append")[0] ?? "").matchAll(/virtio_mmio\.device=512@0x([0-9a-f]+):(\d+)/g)];
  t.deepEqual(
    told.map(([, base, irq]) => [Number.parseInt(base ?? "", 16), Number(irq)]),
    slots.map((slot) => [0xfeb0_0000 + slot * 512, 5 + slot]),
  );
});

test("size and accelerator", (t) => {
  const args = qemuArguments(options);
  t.deepEqual([valuesOf(args, "-smp"), valuesOf(args, "-m")], [["3"], ["256M"]]);
  t.true(valuesOf(args, "-object").some((words) => words.includes("size=256M,share=on")));
  t.true(valuesOf(args, "-accel")[0]?.startsWith("tcg"));
  const parameter = (word: string, changes: Partial<QemuOptions>): boolean =>
    (valuesOf(qemuArguments({ ...options, ...changes }), "-append")[0] ?? "").split(" ").includes(word);
  const clock = (changes: Partial<QemuOptions>): boolean => parameter("tsc_early_khz=7", changes);
  t.deepEqual([clock({}), clock({ tscKhz: 7 }), clock({ tscKhz: 7, accelerator: "kvm" })], [false, true, false]);
  const clears = (changes: Partial<QemuOptions>): boolean => parameter("init_on_alloc=1", changes);
  t.deepEqual([clears({}), clears({ accelerator: "kvm" })], [true, false], "what TCG has translated of a page goes with its old content");
  t.is(valuesOf(qemuArguments({ ...options, accelerator: "kvm" }), "-cpu")[0], "host");
});

test("the kernel's own parameters come before --, init's after it", (t) => {
  const [kernel = "", init = ""] = kernelCommandLine("/dev/vda", ["slot=1"], ["quiet", "x=y"]).split(" -- ");
  t.true(kernel.includes("root=/dev/vda ") && kernel.endsWith("slot=1 quiet x=y"));
  t.true(init.endsWith("/agent/agent.cjs"));
});
