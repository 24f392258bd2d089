/** src/host/probe.ts and kvm-probe.ts: what KVM can do here, programs found in PATH, and the driver that follows. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { defaultConfig } from "../../src/config/config.ts";
import { probeKvm, runProbe } from "../../src/host/kvm-probe.ts";
import { chooseDriver, findProgram } from "../../src/host/probe.ts";
import { failure, temporaryFolder } from "./helpers.ts";

const sh = { ...defaultConfig().hypervisor, qemu: "/bin/sh" };
const works = async () => ({ works: true, why: "it works" });
const broken = async () => ({ works: false, why: "it does not" });
const never = async () => {
  throw new Error("asked");
};

test("auto takes the kvm driver where the probe's guest ran, else QEMU's emulation, and says why", async (t) => {
  t.deepEqual(await chooseDriver(sh, works), { driver: "kvm", device: "/dev/kvm", why: "it works" });
  t.deepEqual(await chooseDriver(sh, broken), { driver: "qemu", accelerator: "tcg", qemu: "/bin/sh", why: "it does not" });
});

test("a driver that is asked for is the one, or an error", async (t) => {
  t.deepEqual(await chooseDriver({ ...sh, driver: "kvm" }, works), { driver: "kvm", device: "/dev/kvm", why: "it works" });
  await t.throwsAsync(
    chooseDriver({ ...sh, driver: "kvm" }, broken),
    failure("unavailable", /^hypervisor\.driver is "kvm", which can't work here: it does not$/),
  );
  const qemu = { driver: "qemu", qemu: "/bin/sh" } as const;
  t.deepEqual(await chooseDriver({ ...sh, driver: "qemu" }, works), { ...qemu, accelerator: "kvm", why: "it works" });
  t.deepEqual(await chooseDriver({ ...sh, driver: "qemu" }, broken), { ...qemu, accelerator: "tcg", why: "it does not" });
});

test("the configuration's accelerator is taken as it is", async (t) => {
  for (const accelerator of ["kvm", "tcg"] as const) {
    t.deepEqual(await chooseDriver({ ...sh, driver: "qemu", accelerator }, never), {
      ...{ driver: "qemu", accelerator, qemu: "/bin/sh" },
      why: `hypervisor.accelerator is "${accelerator}"`,
    });
  }
});

test("no hypervisor is an error that says what to do", async (t) => {
  await t.throwsAsync(
    chooseDriver({ ...sh, qemu: "/no/such/qemu" }, broken),
    failure("unavailable", /^no hypervisor: \/no\/such\/qemu not found or not executable.*it does not; install qemu-system-x86 or set hypervisor\.qemu$/),
  );
});

test("no device, and one that is not KVM's, in words", async (t) => {
  const cache = join(temporaryFolder(t), "probe.json");
  t.deepEqual(await probeKvm("/no/such", cache), { works: false, why: "there is no /no/such" });
  t.false(existsSync(cache));
  t.like(await runProbe("/dev/null"), { works: false });
  t.regex((await runProbe("/dev/null")).why, /^\/dev\/null: KVM_GET_API_VERSION: ENOTTY/);
});

test("the verdict is kept for this boot and this device", async (t) => {
  const cache = join(temporaryFolder(t), "probe.json");
  const first = await probeKvm("/dev/null", cache);
  const kept = JSON.parse(readFileSync(cache, "utf8"));
  writeFileSync(cache, JSON.stringify({ ...kept, why: "kept" }));
  t.deepEqual(await probeKvm("/dev/null", cache), { ...first, why: "kept" });
  writeFileSync(cache, JSON.stringify({ ...kept, key: "another boot" }));
  t.deepEqual(await probeKvm("/dev/null", cache), first);
  writeFileSync(cache, "{");
  t.deepEqual(await probeKvm("/dev/null", cache), first);
});

test("a /dev/kvm that is there is judged by what its guest did", async (t) => {
  if (!existsSync("/dev/kvm")) return void t.pass("this host has none");
  const { works: able, why } = await runProbe("/dev/kvm");
  if (able) t.is(why, "a test guest took an interrupt and returned from it");
  else t.regex(why, /^a test guest's breakpoint failed \(.*\), so no stock kernel can run$|\/dev\/kvm/);
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
