/** src/oci/sysctl.ts: the names a container may set, as runc has them, held against runc itself. */
import { join } from "node:path";
import test from "ava";
import { loadBundle } from "../../src/oci/bundle.ts";
import type { NamespaceType, Spec } from "../../src/oci/spec.ts";
import { specTemplate } from "../../src/oci/spec-template.ts";
import { sysctlPath } from "../../src/oci/sysctl.ts";
import { failure, runc, temporaryFolder, writeBundle } from "./helpers.ts";

function specOf(name: string, without: readonly NamespaceType[] = []): Spec {
  const spec = specTemplate({ rootless: false, uid: 0, gid: 0 });
  spec.linux = { ...spec.linux, namespaces: (spec.linux?.namespaces ?? []).filter(({ type }) => !without.includes(type)), sysctl: { [name]: "1" } };
  if (without.includes("uts")) delete spec.hostname;
  return spec;
}

const NO_NAMESPACE = "is not in a separate kernel namespace";
const HOSTS_IPC = "is not allowed in the hosts ipc namespace";

const refused: readonly { name: string; without?: readonly NamespaceType[]; why: string; told?: string }[] = [
  { name: "vm.swappiness", why: NO_NAMESPACE },
  { name: "vm/swappiness", why: NO_NAMESPACE, told: "vm.swappiness" },
  { name: "kernel.pid_max", why: NO_NAMESPACE },
  { name: "kernel.msg_next_id", why: NO_NAMESPACE },
  { name: "fs.file-max", why: NO_NAMESPACE },
  { name: "fs.mqueue", why: NO_NAMESPACE },
  { name: "net", why: NO_NAMESPACE },
  { name: "user.max_user_namespaces", why: NO_NAMESPACE },
  { name: "kernel.msgmax", without: ["ipc"], why: HOSTS_IPC },
  { name: "kernel/shm_rmid_forced", without: ["ipc"], why: HOSTS_IPC, told: "kernel.shm_rmid_forced" },
  { name: "fs.mqueue.msg_max", without: ["ipc"], why: HOSTS_IPC },
  { name: "kernel.domainname", without: ["uts"], why: NO_NAMESPACE },
  { name: "kernel.hostname", without: ["uts"], why: NO_NAMESPACE },
  { name: "kernel.hostname", why: 'is not allowed as it conflicts with the OCI "hostname" field' },
];

test("a name without a namespace of the container is refused, in runc's words", async (t) => {
  for (const { name, without = [], why, told = name } of refused) {
    const folder = writeBundle(temporaryFolder(t), specOf(name, without));
    t.throws(() => loadBundle(folder, () => {}), failure("invalid", `sysctl "${told}" ${why}`), name);
    const { code, stderr } = await runc("--root", join(folder, "runc"), "create", "--bundle", folder, "tskata-unit-sysctl");
    t.not(code, 0, name);
    t.true(stderr.replaceAll("\\", "").includes(`sysctl "${told}" ${why}`), `${name}: ${stderr}`);
  }
});

test("those of ipc, uts and network namespaces pass, new or joined", (t) => {
  const ipc = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"].map((name) => `kernel.${name}`);
  for (const name of [...ipc, "fs.mqueue.queues_max", "kernel/msgmax", "kernel.domainname", "net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding"]) {
    const spec = specOf(name);
    for (const path of [undefined, "/proc/1/ns/any"]) {
      for (const namespace of spec.linux?.namespaces ?? []) if (path !== undefined && /ipc|uts/.test(namespace.type)) namespace.path = path;
      t.notThrows(() => loadBundle(writeBundle(temporaryFolder(t), spec), () => {}), name);
    }
  }
});

test("a name that leads out of /proc/sys, or into a namespace's folder and out again, is none", (t) => {
  for (const name of ["net/../kernel/panic", "fs/mqueue/../file-max", "net..x", "/net/x", "fs.mqueue."]) {
    t.throws(() => loadBundle(writeBundle(temporaryFolder(t), specOf(name)), () => {}), failure("invalid", `linux.sysctl: invalid name "${name}"`), name);
  }
  t.is(sysctlPath("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
});
