/** src/control/pod-config.ts: a pod's config.json, checked before a sandbox process trusts it. */
import test from "ava";
import { type PodConfig, parsePodConfig } from "../../src/control/pod-config.ts";

const config: PodConfig = {
  version: 1,
  id: "box",
  hypervisor: { driver: "qemu", accelerator: "tcg", qemu: "/usr/bin/qemu-system-x86_64" },
  jail: "/opt/tskata/lib/tskata-jail",
  kernel: "/opt/tskata/guest/vmlinux",
  image: "/opt/tskata/guest/image.erofs",
  kernelParameters: ["quiet"],
  vcpus: 2,
  memoryMib: 256,
  hostname: "",
  guestLogLevel: "info",
  logLevel: "info",
  fsThreads: 4,
  writeback: true,
  startTimeoutMs: 120_000,
  callTimeoutMs: 120_000,
  seccomp: "enforce",
};

test("what was written is read", (t) => {
  t.deepEqual(parsePodConfig(JSON.stringify(config)), config);
});

test("a missing field, one of another type, an unknown version or driver is refused by its name", (t) => {
  for (const key of Object.keys(config)) {
    t.throws(() => parsePodConfig(JSON.stringify({ ...config, [key]: undefined })), { message: new RegExp(`"${key}"`) }, key);
    t.throws(() => parsePodConfig(JSON.stringify({ ...config, [key]: null })), { message: new RegExp(`"${key}"`) }, key);
  }
  const bad: object[] = [{ version: 2 }, { vcpus: 0 }, { vcpus: 1.5 }, { memoryMib: -1 }, { fsThreads: 0 }, { writeback: 1 }, { kernelParameters: [1] }];
  for (const changes of bad) t.throws(() => parsePodConfig(JSON.stringify({ ...config, ...changes })), undefined, JSON.stringify(changes));
  t.throws(() => parsePodConfig(JSON.stringify({ ...config, hypervisor: { ...config.hypervisor, accelerator: "hvf" } })), { message: /accelerator/ });
});

test("no JSON", (t) => {
  t.throws(() => parsePodConfig(""), { instanceOf: SyntaxError });
  t.throws(() => parsePodConfig("null"));
});
