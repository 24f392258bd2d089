/**
 * `npm run bench:vmm [-- TURNS]`: our machine on /dev/kvm beside QEMU's microvm on the same, same guest kernel and image, turn by turn
 * in one run. On this host's KVM, or in the testbed where it has none.
 */
import { join } from "node:path";
import { pinnedNode, repository } from "./lib/steps.ts";
import { setup } from "./setup.ts";
import { hostRunsKvm, runInTestbed } from "./testbed.ts";

const LIMIT_MS = 3_600_000;

await setup();
const command = [pinnedNode, "--disable-warning=ExperimentalWarning", join(repository, "scripts/bench/vmm.ts"), ...process.argv.slice(2)];
if (await hostRunsKvm()) await import("./bench/vmm.ts");
else process.exitCode = (await runInTestbed({ command, cwd: repository, timeoutMs: LIMIT_MS })).status;
