/** src/config/sizing.ts: a virtual machine's CPUs and memory from limits, defaults and the host. */
import test from "ava";
import fc from "fast-check";
import { type Config, defaultConfig } from "../../src/config/config.ts";
import { hostSize, podSize } from "../../src/config/sizing.ts";

const host = { cpus: 8, memoryMib: 16_384 };
const MIB = 1024 * 1024;
const guest = (changes: Partial<Config["guest"]> = {}): Config["guest"] => ({ ...defaultConfig().guest, ...changes });

test("without limits: the defaults and the base", (t) => {
  t.deepEqual(podSize(guest(), undefined, {}, host), { vcpus: 1, memoryMib: 2048 + 256 });
  t.deepEqual(podSize(guest({ default_vcpus: 2, base_vcpus: 1 }), {}, {}, host), { vcpus: 3, memoryMib: 2304 });
  t.deepEqual(podSize(guest(), { cpu: { quota: -1, period: 100_000 }, memory: { limit: -1 } }, {}, host), { vcpus: 1, memoryMib: 2304 });
  t.deepEqual(podSize(guest(), { cpu: { quota: 0 }, memory: { limit: 0 } }, {}, host), { vcpus: 1, memoryMib: 2304 });
});

test("limits: CPUs and mebibytes rounded up, and the base", (t) => {
  const size = (quota: number, period: number | undefined, limit: number): unknown =>
    podSize(guest(), { cpu: { quota, ...(period === undefined ? {} : { period }) }, memory: { limit } }, {}, host);
  t.deepEqual(size(150_000, 100_000, 512 * MIB), { vcpus: 2, memoryMib: 768 });
  t.deepEqual(size(50_000, 100_000, 512 * MIB + 1), { vcpus: 1, memoryMib: 769 });
  t.deepEqual(size(300_000, undefined, 1), { vcpus: 3, memoryMib: 257 });
  t.deepEqual(size(300_000, 0, 1), { vcpus: 3, memoryMib: 257 });
});

test("no more than the configuration's limits and the host", (t) => {
  const much = { cpu: { quota: 6_400_000, period: 100_000 }, memory: { limit: 64 * 1024 * MIB } };
  t.deepEqual(podSize(guest(), much, {}, host), { vcpus: 8, memoryMib: 16_384 });
  t.deepEqual(podSize(guest({ max_vcpus: 4, max_memory_mib: 1024 }), much, {}, host), { vcpus: 4, memoryMib: 1024 });
});

test("the kernel's way of saying no limit is none", (t) => {
  for (const limit of [2 ** 63 - 4096, 2 ** 63, 2 ** 62]) t.is(podSize(guest(), { memory: { limit } }, {}, host).memoryMib, 2304);
});

test("Kubernetes tells the sum of the pod's limits in annotations; zero means none", (t) => {
  const annotations = {
    "io.kubernetes.cri.sandbox-cpu-quota": "250000",
    "io.kubernetes.cri.sandbox-cpu-period": "100000",
    "io.kubernetes.cri.sandbox-memory": String(1024 * MIB),
  };
  const resources = { cpu: { quota: 100_000, period: 50_000 }, memory: { limit: 64 * MIB } };
  t.deepEqual(podSize(guest(), undefined, annotations, host), { vcpus: 3, memoryMib: 1280 });
  t.deepEqual(podSize(guest(), resources, annotations, host), { vcpus: 3, memoryMib: 1280 });
  const none = Object.fromEntries(Object.keys(annotations).map((key) => [key, "0"]));
  t.deepEqual(podSize(guest(), resources, none, host), { vcpus: 2, memoryMib: 320 });
  t.deepEqual(podSize(guest(), resources, { "io.kubernetes.cri.sandbox-memory": "much" }, host), { vcpus: 2, memoryMib: 320 });
});

test("the host is measured", (t) => {
  const { cpus, memoryMib } = hostSize();
  t.true(Number.isInteger(cpus) && cpus >= 1);
  t.true(Number.isInteger(memoryMib) && memoryMib > 64);
  t.true(podSize(guest(), undefined).vcpus >= 1);
});

test("any limits give a machine that can exist", (t) => {
  const some = fc.oneof(fc.maxSafeInteger(), fc.constantFrom(0, -1, 2 ** 63, 1));
  const positive = fc.integer({ min: 1, max: 1 << 20 });
  const config = fc.record({
    default_vcpus: positive,
    base_vcpus: fc.nat(64),
    max_vcpus: positive,
    default_memory_mib: positive,
    base_memory_mib: positive,
    max_memory_mib: fc.nat(1 << 20),
  });
  const annotations = fc.dictionary(
    fc.constantFrom("cpu-quota", "cpu-period", "memory").map((name) => `io.kubernetes.cri.sandbox-${name}`),
    fc.oneof(fc.string(), some.map(String)),
  );
  fc.assert(
    fc.property(config, some, fc.nat(), some, annotations, positive, positive, (changes, quota, period, limit, given, cpus, memoryMib) => {
      const settings = guest(changes);
      const size = podSize(settings, { cpu: { quota, period }, memory: { limit } }, given, { cpus, memoryMib });
      t.true(Number.isInteger(size.vcpus) && size.vcpus >= 1 && size.vcpus <= Math.min(cpus, settings.max_vcpus));
      t.true(Number.isInteger(size.memoryMib) && size.memoryMib >= settings.base_memory_mib);
      t.true(size.memoryMib <= Math.max(settings.base_memory_mib, settings.max_memory_mib || memoryMib));
    }),
  );
});
