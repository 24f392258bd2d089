/** scripts/imports.ts: which imports break the rule that they go down only. */
import test from "ava";
import { importsOf, violations } from "../../scripts/imports.ts";

test("relative imports of every form, types too", (t) => {
  const text = `import a from "./a.ts";
import type { B } from "../b/b.ts";
export * from "../../agent/c.ts";
import "./side.ts";
const d = await import("./d.ts");
import fs from "node:fs"; // import "x"`;
  t.deepEqual(importsOf("src/cli/main.ts", text), ["src/cli/a.ts", "src/b/b.ts", "agent/c.ts", "src/cli/side.ts", "src/cli/d.ts"]);
});

test("what is forbidden, and what is not", (t) => {
  const bad: [string, string][] = [
    ["src/cli/main.ts", "src/sandbox/sandbox.ts"],
    ["src/lifecycle/create.ts", "src/agent-client/agent-client.ts"],
    ["src/control/client.ts", "src/lifecycle/pods.ts"],
    ["src/sandbox/sandbox.ts", "src/lifecycle/pods.ts"],
    ["src/sandbox/sandbox.ts", "agent/main.ts"],
    ["src/hypervisor/machine.ts", "src/control/server.ts"],
    ["agent/main.ts", "src/host/cgroup.ts"],
    ["src/oci/spec.ts", "src/host/lock.ts"],
    ["src/base/errors.ts", "src/oci/spec.ts"],
  ];
  for (const [file, target] of bad) {
    const found = violations(file, [target]);
    t.true(found.length > 0 && found[0]?.startsWith(`${file} imports ${target}: `), `${file} ${target}`);
  }
  const good: [string, string][] = [
    ["src/cli/main.ts", "src/lifecycle/create.ts"],
    ["src/sandbox/sandbox.ts", "src/control/server.ts"],
    ["agent/main.ts", "src/native.ts"],
    ["agent/main.ts", "src/oci/spec.ts"],
    ["src/base/errors.ts", "src/base/paths.ts"],
  ];
  for (const [file, target] of good) t.deepEqual(violations(file, [target]), [], `${file} ${target}`);
});
