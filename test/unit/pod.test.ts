/** src/oci/pod.ts: which pod a container belongs to, by its engine's annotations. */
import test from "ava";
import { joinedNamespaces, podRole } from "../../src/oci/pod.ts";

const engines = {
  containerd: { type: "io.kubernetes.cri.container-type", id: "io.kubernetes.cri.sandbox-id" },
  "CRI-O": { type: "io.kubernetes.cri-o.ContainerType", id: "io.kubernetes.cri-o.SandboxID" },
};

test("a container without annotations is a pod of its own", (t) => {
  t.deepEqual(podRole("a"), { kind: "owner" });
  t.deepEqual(podRole("a", { other: "x" }), { kind: "owner" });
});

for (const [name, { type, id }] of Object.entries(engines)) {
  test(`${name}: the sandbox owns the pod, containers join it`, (t) => {
    t.deepEqual(podRole("pause", { [type]: "sandbox", [id]: "pause" }), { kind: "owner" });
    t.deepEqual(podRole("web", { [type]: "container", [id]: "pause" }), { kind: "member", podId: "pause" });
  });

  test(`${name}: half of the annotations, or a pod of its own name, makes an owner`, (t) => {
    t.deepEqual(podRole("web", { [type]: "container" }), { kind: "owner" });
    t.deepEqual(podRole("web", { [id]: "pause" }), { kind: "owner" });
    t.deepEqual(podRole("web", { [type]: "container", [id]: "web" }), { kind: "owner" });
    t.deepEqual(podRole("web", { [type]: "CONTAINER", [id]: "pause" }), { kind: "owner" });
  });
}

test("annotations of two engines don't mix", (t) => {
  const mixed = { [engines.containerd.type]: "container", [engines["CRI-O"].id]: "pause" };
  t.deepEqual(podRole("web", mixed), { kind: "owner" });
});

test("the namespaces that a config joins by a pid", (t) => {
  const namespaces = [
    { type: "pid", path: "/proc/7/ns/pid" },
    { type: "network", path: "/proc/8/ns/net" },
    { type: "ipc", path: "" },
    { type: "uts", path: "/proc/7/ns/ipc" },
    { type: "mount", path: "/proc/7/ns/mnt" },
    { type: "cgroup" },
  ] as const;
  t.deepEqual(joinedNamespaces({ namespaces: [...namespaces] }), [
    { type: "pid", pid: 7 },
    { type: "network", pid: 8 },
  ]);
  t.deepEqual(joinedNamespaces({ namespaces: [{ type: "network", path: "/var/run/netns/cni-1" }] }), []);
  t.deepEqual(joinedNamespaces({}), []);
});
