/** agent/container/container-plan.ts: the plan of a container's init and of an exec'ed process, from the OCI config. */
import test from "ava";
import { containerPlan, execPlan } from "../../agent/container/container-plan.ts";
import type { Plan } from "../../agent/container/plan.ts";
import type { Linux, Process, Spec } from "../../src/oci/spec.ts";
import { failure } from "./helpers.ts";

function plan(changes: Partial<Spec> = {}, linux: Linux = {}, shared: [string, number][] = []): Plan {
  const spec: Spec = { ociVersion: "1.2.0", root: { path: "/no/such" }, process: { cwd: "/", args: ["sh"] }, linux, ...changes };
  return containerPlan({ id: "box", spec, cgroup: "/sys/fs/cgroup/tskata/box", sharedPids: new Map(shared), noPivot: false, newKeyring: true, bundle: "/b" });
}

const namespaces = (...types: string[]): Linux => ({ namespaces: types.map((type) => ({ type })) as NonNullable<Linux["namespaces"]> });

test("namespaces are made, or joined where the pod shares them", (t) => {
  t.is(plan({}, namespaces("mount", "pid", "uts", "ipc", "cgroup", "user", "time")).newNamespaces, 0x3e02_0080);
  const shared = plan({}, namespaces("mount", "ipc", "pid"), [
    ["ipc", 77],
    ["pid", 78],
  ]);
  t.is(shared.newNamespaces, 0x0002_0000);
  t.deepEqual(shared.joins, [
    { type: 0x0800_0000, path: "/proc/77/ns/ipc" },
    { type: 0x2000_0000, path: "/proc/78/ns/pid" },
  ]);
  t.throws(() => plan({}, {}, [["moon", 1]]), failure("invalid", 'unknown namespace type "moon"'));
});

test("texts that the kernel takes as they are", (t) => {
  const linux: Linux = {
    uidMappings: [
      { containerID: 0, hostID: 1000, size: 1 },
      { containerID: 1, hostID: 2000, size: 65_535 },
    ],
    timeOffsets: { boottime: { secs: -5 }, monotonic: { nanosecs: 7 } },
  };
  const { uidMap, gidMap, timeOffsets } = plan({}, linux);
  t.deepEqual([uidMap, gidMap, timeOffsets], ["0 1000 1\n1 2000 65535\n", "", "monotonic 0 7\nboottime -5 0\n"]);
});

test("sysctls by either separator; none leads out of /proc/sys", (t) => {
  const paths = (name: string): readonly (readonly string[])[] => plan({}, { sysctl: { [name]: "1" } }).sysctls;
  t.deepEqual(paths("net.ipv4.ip_forward"), [["net/ipv4/ip_forward", "1"]]);
  t.deepEqual(paths("net/ipv4/conf/eth0.1/forwarding"), [["net/ipv4/conf/eth0.1/forwarding", "1"]]);
  t.deepEqual(paths("net.ipv4.conf.eth0/1.forwarding"), [["net/ipv4/conf/eth0.1/forwarding", "1"]]);
  t.deepEqual(paths("vm"), [["vm", "1"]]);
  for (const name of ["", ".", "..", "a/../b", "../a", "a//b", "a..b", "/a", "a.", "a.//.b", "./a", "kernel/./x"])
    t.throws(() => paths(name), failure("invalid", `linux.sysctl: invalid name "${name}"`), name);
});

test("devices: the default ones, those of the config in their place, none in a /dev of the caller's", (t) => {
  const devices: NonNullable<Linux["devices"]> = [
    { path: "/dev/null", type: "c", major: 9, minor: 9, fileMode: 0o640, uid: 1, gid: 2 },
    { path: "/dev/loop", type: "b", major: 7, minor: 0 },
    { path: "/dev/fifo", type: "p", fileMode: 0o100_600 },
  ];
  const own = plan({}, { devices });
  t.deepEqual(
    own.devices.map(({ path }) => path),
    ["/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/null", "/dev/loop", "/dev/fifo"],
  );
  t.deepEqual(own.devices.slice(5), [
    { path: "/dev/null", mode: 0o020_640, major: 9, minor: 9, uid: 1, gid: 2 },
    { path: "/dev/loop", mode: 0o060_666, major: 7, minor: 0, uid: 0, gid: 0 },
    { path: "/dev/fifo", mode: 0o010_600, major: 0, minor: 0, uid: 0, gid: 0 },
  ]);
  t.is(own.links.length, 6);
  for (const mount of [
    { destination: "/dev", type: "bind" },
    { destination: "/dev/", options: ["rbind"] },
  ]) {
    const bound = plan({ mounts: [mount] }, { devices });
    t.deepEqual([bound.devices.length, bound.links.length], [3, 0]);
  }
  t.is(plan({ mounts: [{ destination: "/dev", type: "tmpfs" }] }).devices.length, 6);
});

test("hooks, personality, root", (t) => {
  const hook = { path: "/bin/x", args: ["x"], timeout: 3 };
  const made = plan(
    { root: { path: "/r", readonly: true }, hooks: { startContainer: [hook] }, annotations: { a: "b" } },
    { personality: { domain: "LINUX32" } },
  );
  t.deepEqual(made.startHooks, [{ path: "/bin/x", args: ["x"], env: [], timeoutSeconds: 3 }]);
  t.like(JSON.parse(made.hookState), { id: "box", status: "created", pid: 1, bundle: "/b", annotations: { a: "b" } });
  t.like(made, { container: true, rootReadonly: true, rootfs: "/r", personality: 8, newKeyring: true });
  t.is(plan({}, { personality: { domain: "LINUX" } }).personality, 0);
  t.throws(() => plan({ process: undefined }), failure("invalid", "process property must not be empty"));
});

test("the CPUs of an exec'ed process, before and after it joins the cgroup; an init has none", (t) => {
  const cpus = (execCPUAffinity: NonNullable<Process["execCPUAffinity"]>): (readonly number[])[] => {
    const made = execPlan({ spec: { ociVersion: "1.2.0" }, process: { cwd: "/", execCPUAffinity }, cgroup: "/c", subCgroup: "", init: 42 });
    return [made.initialCpus, made.finalCpus];
  };
  t.deepEqual(cpus({}), [[], []]);
  t.deepEqual(cpus({ initial: "", final: "1" }), [[], [1]]);
  t.deepEqual(cpus({ initial: "7", final: "0-2,5,1-2,1023" }), [[7], [0, 1, 2, 5, 1023]]);
  for (const final of ["x", "-1", "1-", "3-2", "1024", "0-1024", "0x1", "1;2", " 1", "99999999999999999999"]) {
    t.throws(() => cpus({ final }), failure("invalid", `process.execCPUAffinity.final: "${final}" is no list of CPUs`), final);
  }
  const init = plan({ process: { cwd: "/", execCPUAffinity: { initial: "1", final: "1" } } });
  t.deepEqual([init.initialCpus, init.finalCpus], [[], []]);
});

test("an exec'ed process joins what the container has, user first and mount last", (t) => {
  const spec: Spec = { ociVersion: "1.2.0", linux: namespaces("mount", "pid", "user", "network") };
  const made = execPlan({ spec, process: { cwd: "/w", args: ["id"], user: { uid: 5 } }, cgroup: "/c", subCgroup: "", init: 42 });
  t.deepEqual(
    made.joins.map(({ path }) => path),
    ["/proc/42/ns/user", "/proc/42/ns/pid", "/proc/42/ns/mnt"],
  );
  t.like(made, { container: false, newNamespaces: 0, mounts: [], devices: [], uid: 5, cwd: "/w", cgroup: "/c", cgroupOf: 42 });
});

test("an exec'ed process joins the init's cgroup, or the one below the container's that is asked for", (t) => {
  const made = (subCgroup: string): Plan => execPlan({ spec: { ociVersion: "1.2.0" }, process: { cwd: "/" }, cgroup: "/c", subCgroup, init: 42 });
  t.like(made(""), { cgroup: "/c", cgroupOf: 42 });
  t.like(made("/"), { cgroup: "/c", cgroupOf: 0 });
  t.like(made("a/./b/"), { cgroup: "/c/a/b", cgroupOf: 0 });
  t.throws(() => made("a/../../b"), failure("invalid", 'sub cgroup "a/../../b" leaves the container\'s cgroup'));
});
