/** The configs that real clients sent (test/fixtures/clients): each is taken as it is, without a warning, or refused by name. */
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { loadBundle } from "../../src/oci/bundle.ts";
import { type GuestSpec, guestSpec } from "../../src/oci/guest-spec.ts";
import { podRole } from "../../src/oci/pod.ts";
import type { Spec } from "../../src/oci/spec.ts";
import { type Client, configOf, recorded, writeClientBundle } from "../helpers/clients.ts";
import { temporaryFolder } from "./helpers.ts";

const HOST_NETWORK = /^host networking is not supported/;

const REFUSED: Readonly<Record<string, RegExp>> = {
  "docker network-host": HOST_NETWORK,
  "podman network-host": HOST_NETWORK,
  "containerd ctr-net-host": HOST_NETWORK,
  "docker sysctl-host-ipc": /^sysctl "kernel\.msgmax" is not allowed in the hosts ipc namespace$/,
};

/** Docker's own name for the host's network, and a stand-in for what an engine makes for a container. */
function placeNetwork(config: Spec, folder: string): void {
  for (const namespace of config.linux?.namespaces ?? []) {
    if (namespace.type !== "network" || namespace.path === undefined || namespace.path.startsWith("/proc/")) continue;
    const target = namespace.path === "/var/run/docker/netns/default" ? "/proc/self/ns/net" : folder;
    namespace.path = join(folder, "netns");
    symlinkSync(target, namespace.path);
  }
}

for (const [client, count] of [
  ["docker", 32],
  ["podman", 28],
  ["containerd", 12],
] as const satisfies [Client, number][]) {
  test(`${client}: every recorded config is taken without a warning, or refused by name`, (t) => {
    const all = [...recorded(client).values()];
    t.is(all.length, count);
    for (const { name, config } of all) {
      const folder = temporaryFolder(t);
      placeNetwork(config, folder);
      writeClientBundle(folder, config, (path) => mkdirSync(path));
      const warnings: string[] = [];
      const make = (): GuestSpec => {
        const bundle = loadBundle(folder, (warning) => warnings.push(warning));
        return guestSpec("box", bundle, { id: "box", writeback: true, containerOf: () => "other" }, new Map());
      };
      const refused = REFUSED[`${client} ${name}`];
      if (refused === undefined) t.notThrows(make, name);
      else t.regex(t.throws(make, undefined, name)?.message ?? "", refused, name);
      t.deepEqual(warnings, [], name);
    }
  });
}

test("containers of containerd's and podman's pods name them by annotations, Docker's by nothing", (t) => {
  const roleOf = (client: Client, name: string) => podRole("box", configOf(client, name).annotations);
  t.is(roleOf("containerd", "cri-sandbox").kind, "owner");
  t.is(roleOf("containerd", "cri-container").kind, "member");
  t.is(roleOf("podman", "pod-infra").kind, "owner");
  t.is(roleOf("podman", "pod-member").kind, "member");
  t.is(roleOf("docker", "pid-container").kind, "owner");
});
