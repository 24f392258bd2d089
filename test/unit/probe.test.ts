/** src/host/probe.ts: what KVM can do here, programs found in PATH, and the driver that follows. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { defaultConfig } from "../../src/config/config.ts";
import { chooseDriver, findProgram, type KvmFacts, probeKvm } from "../../src/host/probe.ts";
import { failure, temporaryFolder } from "./helpers.ts";

const cpuinfo = (flags: string): string => `processor\t: 0\nflags\t\t: fpu ${flags} sse2\nbogomips\t: 5\n\nprocessor\t: 1\nflags\t\t: fpu\n`;
const usable: KvmFacts = { device: true, permission: true, cpuFlag: "vmx" };
const sh = { ...defaultConfig().hypervisor, qemu: "/bin/sh" };

test("KVM's device and the CPU's flag", (t) => {
  t.deepEqual(probeKvm(cpuinfo("vmx"), "/dev/null"), { device: true, permission: true, cpuFlag: "vmx" });
  t.deepEqual(probeKvm(cpuinfo("svm"), "/dev/null"), { device: true, permission: true, cpuFlag: "svm" });
  t.deepEqual(probeKvm(cpuinfo("vmx_like svmx"), "/no/such"), { device: false, permission: false, cpuFlag: undefined });
  t.is(probeKvm("", "/dev/null").cpuFlag, undefined);
  t.notThrows(() => probeKvm());
});

test("auto takes KVM only where it can work, and says why not", (t) => {
  t.deepEqual(chooseDriver(sh, usable), { driver: "qemu", accelerator: "kvm", qemu: "/bin/sh", why: "/dev/kvm is usable and the CPU has vmx" });
  const reasons: [Partial<KvmFacts>, RegExp][] = [
    [{ device: false, permission: false }, /^there is no \/dev\/kvm$/],
    [{ permission: false }, /may not be opened/],
    [{ cpuFlag: undefined }, /neither vmx nor svm/],
  ];
  for (const [facts, why] of reasons) {
    const choice = chooseDriver(sh, { ...usable, ...facts });
    t.is(choice.accelerator, "tcg");
    t.regex(choice.why, why);
  }
});

test("the configuration's accelerator is taken as it is", (t) => {
  t.is(chooseDriver({ ...sh, accelerator: "tcg" }, usable).accelerator, "tcg");
  const none: KvmFacts = { device: false, permission: false, cpuFlag: undefined };
  t.deepEqual(chooseDriver({ ...sh, accelerator: "kvm" }, none), {
    driver: "qemu",
    accelerator: "kvm",
    qemu: "/bin/sh",
    why: 'hypervisor.accelerator is "kvm"',
  });
});

test("no hypervisor is an error that says what to do", (t) => {
  t.throws(
    () => chooseDriver({ ...sh, qemu: "/no/such/qemu" }, usable),
    failure("unavailable", /^no hypervisor: \/no\/such\/qemu not found or not executable.*install qemu-system-x86 or set hypervisor\.qemu$/),
  );
});

test.serial("a name is looked up in PATH: the first that is a file and can be run", (t) => {
  const folder = temporaryFolder(t);
  const before = process.env["PATH"];
  t.teardown(() => {
    process.env["PATH"] = before;
  });
  for (const name of ["plain", "folder", "good", "later"]) mkdirSync(join(folder, name));
  writeFileSync(join(folder, "plain/tool"), "", { mode: 0o644 });
  mkdirSync(join(folder, "folder/tool"));
  for (const name of ["good", "later"]) {
    writeFileSync(join(folder, name, "tool"), "");
    chmodSync(join(folder, name, "tool"), 0o755);
  }
  process.env["PATH"] = ["/no/such", "plain", "folder", "good", "later"].map((name) => (name.startsWith("/") ? name : join(folder, name))).join(":");
  t.is(findProgram("tool"), join(folder, "good/tool"));
  t.is(findProgram("missing"), undefined);
  t.is(findProgram(join(folder, "plain/tool")), undefined);
  t.is(findProgram(join(folder, "later/tool")), join(folder, "later/tool"));
  delete process.env["PATH"];
  t.is(findProgram("tool"), undefined);
});
