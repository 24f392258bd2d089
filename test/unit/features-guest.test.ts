/** src/oci/features.ts against the guest's agent: what is announced is what it understands, no more and no less. */
import test from "ava";
import { knownOptions } from "../../agent/container/mount-options.ts";
import { planSeccomp, processPart } from "../../agent/container/process-plan.ts";
import { UserDatabase } from "../../agent/container/user.ts";
import { capabilities, features, mountOptions } from "../../src/oci/features.ts";
import type { Seccomp } from "../../src/oci/spec.ts";
import { temporaryFolder } from "./helpers.ts";

interface Announced {
  readonly linux: { readonly seccomp: Readonly<Record<"actions" | "operators" | "archs" | "supportedFlags", string[]>> };
}

test("mount options", (t) => {
  t.deepEqual(mountOptions(), [...new Set(knownOptions())].sort());
});

test("capabilities, each under its own number", (t) => {
  const users = new UserDatabase(temporaryFolder(t));
  const bits = capabilities().map((name) => processPart({ cwd: "/", capabilities: { bounding: [name] } }, users).capabilities?.bounding);
  t.deepEqual(
    bits,
    capabilities().map((_, number) => 1n << BigInt(number)),
  );
});

test("seccomp's actions, operators, architectures and flags", (t) => {
  const { actions, operators, archs, supportedFlags } = (features() as Announced).linux.seccomp;
  const filter = {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: archs,
    flags: supportedFlags,
    syscalls: [
      ...actions.map((action) => ({ names: ["read"], action })),
      ...operators.map((op) => ({ names: ["read"], action: "SCMP_ACT_ALLOW", args: [{ index: 0, value: 0, op }] })),
    ],
  } as Seccomp;
  const plan = planSeccomp(filter);
  t.is(plan?.architectures.length, archs.length);
  t.is(plan?.flags, 2 ** supportedFlags.length - 1);
  t.is(new Set(plan?.rules.flatMap(({ args }) => args.map(({ op }) => op))).size, operators.length);
});
