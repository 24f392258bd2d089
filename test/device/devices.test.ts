/**
 * The virtio devices without a VM: native/fuzz/device_test is a vhost-user front-end with queues filled by hand over memfd memory,
 * against the real transport and devices, built with AddressSanitizer and UndefinedBehaviorSanitizer. One test a case.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import test from "ava";
import { buildFuzz } from "../../scripts/fuzz.ts";

/** Of a case that needs what this host lacks: it prints what that is. What root may do is not among it: there the case fails. */
const SKIPPED = 77;
/** A million nodes and the like take their time. */
const CASE_MS = process.env["TSKATA_TEST_FULL"] === "1" ? 900_000 : 60_000;
const call = promisify(execFile);

const program = join(await buildFuzz("device_test"), "device_test");
const { stdout } = await call(program, ["--list"]);

for (const name of stdout.trimEnd().split("\n")) {
  test.serial(name, async (t) => {
    const failure = await call(program, [name], { timeout: CASE_MS }).then(
      () => undefined,
      (error: { code: unknown; stdout: string; stderr: string; message: string }) => error,
    );
    if (failure?.code !== SKIPPED) return t.is(failure && `${failure.message}\n${failure.stderr}`, undefined);
    t.regex(failure.stdout, /^skipped: it needs \S/m);
    t.log(failure.stdout.trim());
  });
}
