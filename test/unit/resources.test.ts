/** agent/container/resources.ts: linux.resources as values of cgroup v2 files, equal to runc's (libcontainer/cgroups/fs2). */
import test from "ava";
import fc from "fast-check";
import { cgroupWrites, cpuWeight } from "../../agent/container/resources.ts";
import { TskataError } from "../../src/base/errors.ts";
import type { Resources } from "../../src/oci/spec.ts";
import { failure } from "./helpers.ts";

/** "file=value" in order. */
function writes(resources: Resources): string[] {
  return cgroupWrites(resources).map(({ file, value }) => `${file}=${value}`);
}

test("nothing asked for, nothing written", (t) => {
  t.deepEqual(writes({}), []);
  const unset = { memory: { limit: 0, reservation: 0, swap: 0 }, cpu: { shares: 0, quota: 0, period: 0, cpus: "", mems: "" }, pids: { limit: 0 } };
  t.deepEqual(writes({ ...unset, blockIO: { weight: 0 }, hugepageLimits: [], rdma: {}, unified: {} }), []);
});

test("memory: v1's swap counts the memory too, v2's does not", (t) => {
  const cases: [Resources["memory"], string[]][] = [
    [{ limit: 1000 }, ["memory.max=1000"]],
    [{ limit: 1000, swap: 1500 }, ["memory.swap.max=500", "memory.max=1000"]],
    [{ limit: 1000, swap: 1000 }, ["memory.swap.max=0", "memory.max=1000"]],
    [{ limit: 1000, swap: -1 }, ["memory.swap.max=max", "memory.max=1000"]],
    [{ limit: 1000, swap: 0 }, ["memory.max=1000"]],
    [{ limit: -1 }, ["memory.swap.max=max", "memory.max=max"]],
    [{ limit: -1, swap: -1 }, ["memory.swap.max=max", "memory.max=max"]],
    [{ swap: -1 }, ["memory.swap.max=max"]],
    [{ reservation: 500 }, ["memory.low=500"]],
    [{ reservation: -1 }, ["memory.low=max"]],
  ];
  for (const [memory, expected] of cases) t.deepEqual(writes({ memory }), expected, JSON.stringify(memory));
  for (const memory of [{ swap: 1000 }, { limit: 0, swap: 1000 }, { limit: -1, swap: 1000 }])
    t.throws(() => writes({ memory }), failure("invalid", "unable to set swap limit without memory limit"));
  t.throws(() => writes({ memory: { limit: 1000, swap: 999 } }), failure("invalid", "memory+swap limit should be >= memory limit"));
});

test("cpu shares become a weight", (t) => {
  const cases: [number, number][] = [
    [2, 1],
    [3, 1],
    [512, 20],
    [1024, 39],
    [2048, 79],
    [4096, 157],
    [262_144, 10_000],
    [0, 1],
    [1, 1],
    [1_000_000, 10_000],
  ];
  for (const [shares, weight] of cases) t.is(cpuWeight(shares), weight, String(shares));
  t.deepEqual(writes({ cpu: { shares: 1024 } }), ["cpu.weight=39"]);
  // runc: (1 + ((shares - 2) * 9999) / 262142) in whole numbers.
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 262_144 }), (shares) => void t.is(cpuWeight(shares), Number(1n + ((BigInt(shares) - 2n) * 9999n) / 262_142n))),
  );
});

test("cpu quota and period share a file", (t) => {
  t.deepEqual(writes({ cpu: { quota: 50_000, period: 100_000 } }), ["cpu.max=50000 100000"]);
  t.deepEqual(writes({ cpu: { quota: 50_000 } }), ["cpu.max=50000 100000"]);
  t.deepEqual(writes({ cpu: { period: 20_000 } }), ["cpu.max=max 20000"]);
  t.deepEqual(writes({ cpu: { quota: -1 } }), ["cpu.max=max 100000"]);
  t.deepEqual(writes({ cpu: { quota: -1, period: 50_000, burst: 7 } }), ["cpu.max=max 50000", "cpu.max.burst=7"]);
  t.deepEqual(writes({ cpu: { cpus: "0-1,3", mems: "0" } }), ["cpuset.cpus=0-1,3", "cpuset.mems=0"]);
});

test("an idle cgroup has no weight", (t) => {
  t.deepEqual(writes({ cpu: { idle: 1, shares: 1024 } }), ["cpu.idle=1"]);
  t.deepEqual(writes({ cpu: { idle: 0, shares: 1024 } }), ["cpu.idle=0", "cpu.weight=39"]);
});

test("pids and block devices", (t) => {
  t.deepEqual(writes({ pids: { limit: 100 } }), ["pids.max=100"]);
  t.deepEqual(writes({ pids: { limit: -1 } }), ["pids.max=max"]);
  const device = { major: 8, minor: 16 };
  const blockIO = {
    weight: 500,
    throttleReadBpsDevice: [{ ...device, rate: 1048576 }],
    throttleWriteBpsDevice: [{ ...device, rate: 2 }],
    throttleReadIOPSDevice: [{ ...device, rate: 3 }],
    throttleWriteIOPSDevice: [{ ...device, rate: 0 }],
  };
  t.deepEqual(writes({ blockIO }), [
    "io.weight=default 4950",
    "io.max=8:16 rbps=1048576",
    "io.max=8:16 wbps=2",
    "io.max=8:16 riops=3",
    "io.max=8:16 wiops=max",
  ]);
});

test("I/O weights of [10, 1000] become those of [1, 10000]", (t) => {
  for (const [weight, value] of [
    [10, 1],
    [1000, 10_000],
  ] as const)
    t.deepEqual(writes({ blockIO: { weight } }), [`io.weight=default ${value}`]);
});

test("huge pages", (t) => {
  t.deepEqual(
    writes({
      hugepageLimits: [
        { pageSize: "2MB", limit: 4_194_304 },
        { pageSize: "1GB", limit: 0 },
      ],
    }),
    ["hugetlb.2MB.max=4194304", "hugetlb.1GB.max=0"],
  );
});

test("numbers that mean no limit, rounded by JSON, do not overflow in the kernel", (t) => {
  for (const none of [JSON.parse("18446744073709551615"), JSON.parse("9223372036854775807")] as number[]) {
    t.deepEqual(writes({ hugepageLimits: [{ pageSize: "2MB", limit: none }] }), ["hugetlb.2MB.max=max"]);
    t.deepEqual(writes({ memory: { limit: none }, pids: { limit: none } }), ["memory.max=max", "pids.max=max"]);
    t.deepEqual(writes({ blockIO: { throttleReadBpsDevice: [{ major: 8, minor: 0, rate: none }] } }), ["io.max=8:0 rbps=max"]);
  }
});

test("unified: files of controllers only, after everything else", (t) => {
  const unified = { "memory.high": "5", "cpu.max": "max", "hugetlb.2MB.max": "0", "memory.oom.group": "1" };
  t.deepEqual(writes({ unified, pids: { limit: 7 } }), ["pids.max=7", "memory.high=5", "cpu.max=max", "hugetlb.2MB.max=0", "memory.oom.group=1"]);
  for (const file of [
    "cgroup.procs",
    "cgroup.kill",
    "../memory.max",
    "memory/max",
    "memory",
    "",
    ".max",
    "memory.",
    "a.b/../../c",
    "Memory.max",
    "memory.max\n",
  ])
    t.throws(() => writes({ unified: { [file]: "1" } }), failure("invalid", `unified resource "${file}" must be a file of a controller`));
});

test("no name in unified leads out of the cgroup's folder", (t) => {
  fc.assert(
    fc.property(fc.string(), (file) => {
      try {
        t.is(cgroupWrites({ unified: { [file]: "1" } })[0]?.file, file);
        t.false(/[/\0]|^\.|\.$|^cgroup\./.test(file));
      } catch (error) {
        t.true(error instanceof TskataError);
      }
    }),
  );
});
