/** src/base/failures.ts, src/hypervisor/guest-end.ts, src/lifecycle/explained.ts: from what is seen of a failure to what is told of it. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { within } from "../../src/base/deadline.ts";
import { TskataError } from "../../src/base/errors.ts";
import { explanation, FAILURES, FailureError, isFailureCode, shortage } from "../../src/base/failures.ts";
import { checkImage, checksumProblem } from "../../src/host/guest-files.ts";
import { guestEnd, guestSilence } from "../../src/hypervisor/guest-end.ts";
import { explained, explaining } from "../../src/lifecycle/explained.ts";
import { failedPhase, inPhase, SpanRecorder } from "../../src/telemetry/spans.ts";
import { endedByGuest } from "../../src/vmm/endings.ts";
import { failure, repository, temporaryFolder } from "./helpers.ts";

const machine = { description: "driver qemu with TCG, 1 vCPU, 256 MiB", memoryMib: 256 };
const restarted = { by: "guest", what: "the guest restarted or powered off" } as const;
const panic = (words: string): string => `[    0.6] something before\n[    1.2] Kernel panic - not syncing: ${words}`;

test("what a guest's console says last is what its end is told as", (t) => {
  const cases: readonly [console: string, code: string, what: string][] = [
    ["", "guest-restarted", "the virtual machine has ended: the guest restarted or powered off"],
    [panic("Requested init /x failed (error -2)."), "kernel-panic", "the guest kernel panicked: Requested init /x failed (error -2)."],
    [panic("Attempted to kill init! exitcode=0x00000300"), "agent-crashed", "the agent in the guest exited with 3"],
    [panic("Attempted to kill init! exitcode=0x0000000b"), "agent-crashed", "the agent in the guest was killed by signal 11"],
    [panic("Attempted to kill init! exitcode=0x0000008b"), "agent-crashed", "the agent in the guest was killed by signal 11"],
    [panic("System is deadlocked on memory"), "guest-out-of-memory", "the guest ran out of memory: the guest kernel panicked: System is deadlocked on memory"],
    [
      panic("Out of memory: compulsory panic_on_oom is enabled"),
      "guest-out-of-memory",
      "the guest ran out of memory: the guest kernel panicked: Out of memory: compulsory panic_on_oom is enabled",
    ],
    [
      `[   60.5] Memory cgroup out of memory: Killed process 99 (tail) total-vm:33000kB\n${panic("Fatal exception")}`,
      "kernel-panic",
      "the guest kernel panicked: Fatal exception",
    ],
    [
      `FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n${panic("Attempted to kill init! exitcode=0x00000006")}`,
      "guest-out-of-memory",
      "the guest ran out of memory: the agent in the guest was killed by signal 6",
    ],
    [
      panic('VFS: Unable to mount root fs on "/dev/vda" or unknown-block(254,0)'),
      "image-corrupt",
      'the guest cannot read its image: the guest kernel panicked: VFS: Unable to mount root fs on "/dev/vda" or unknown-block(254,0)',
    ],
    [
      `erofs: (device vda): erofs_read_inode: bogus i_mode\n${panic("Attempted to kill init! exitcode=0x00000100")}`,
      "image-corrupt",
      "the guest cannot read its image: the agent in the guest exited with 1",
    ],
    [
      `erofs: (device vda): mounted with root inode @ nid 36.\n${panic("Attempted to kill init! exitcode=0x00000100")}`,
      "agent-crashed",
      "the agent in the guest exited with 1",
    ],
  ];
  for (const [console, code, what] of cases) {
    const error = guestEnd(restarted, console, machine);
    t.deepEqual([error.failure, error.message], [code, what], console);
    t.is(error.machine, "the guest restarted or powered off; driver qemu with TCG, 1 vCPU, 256 MiB");
  }
});

test("a hypervisor's own end is told as that, whatever the console says", (t) => {
  const error = guestEnd({ by: "hypervisor", what: "qemu was killed by SIGKILL" }, panic("System is deadlocked on memory"), machine);
  t.deepEqual([error.failure, error.message], ["hypervisor-failed", "the virtual machine has ended: qemu was killed by SIGKILL"]);
  const ending = { vcpu: 0, detail: 1n, instruction: 0n };
  t.true(endedByGuest({ kind: "shutdown", ...ending }));
  t.false(endedByGuest({ kind: "internal-error", ...ending }));
});

test("silence is a guest without memory, where it has too little or says so", (t) => {
  t.deepEqual(told(guestSilence(25, "", machine)), ["agent-silent", "the agent in the guest has not answered in 25 s"]);
  const small = { ...machine, memoryMib: 48 };
  t.deepEqual(told(guestSilence(25, "", small)), [
    "guest-out-of-memory",
    "the guest has 48 MiB of memory, and needs 64: the agent in the guest has not answered in 25 s",
  ]);
  t.is(guestSilence(25, "node invoked oom-killer: gfp_mask=0x1", machine).failure, "guest-out-of-memory");
  t.is(guestEnd(restarted, "", small).failure, "guest-out-of-memory");
});

function told(error: FailureError): [string, string] {
  return [error.failure, error.message];
}

test("a guest's console, whatever it holds, gives one of the table's failures", (t) => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 400 }), (text) => {
      t.true(isFailureCode(guestEnd(restarted, `${text}Kernel panic - not syncing: ${text}`, machine).failure));
    }),
  );
  t.false(isFailureCode("toString"));
});

test("the innermost phase is an error's, also when it is wrapped further out", async (t) => {
  const spans = new SpanRecorder("cli");
  const inner = new Error("inner");
  const work = spans.measure("outer", async () => {
    try {
      await inPhase("inner", () => Promise.reject(inner));
    } catch (cause) {
      throw new Error("wrapped", { cause });
    }
  });
  const error = await t.throwsAsync(work, { message: "wrapped" });
  t.is(failedPhase(error)?.name, "inner");
  t.is(failedPhase(new Error("no phase")), undefined);
});

test("a device that had no descriptors left is no fault of the hypervisor", (t) => {
  for (const why of ["eventfd: Too many open files", "descriptors of a message are lost: no more may be open, or it has too many"]) {
    const error = guestEnd({ by: "hypervisor", what: `the fs device failed: ${why}` }, "", machine);
    t.deepEqual([error.failure, error.machine], ["too-many-open-files", undefined]);
    t.is(error.message, `the virtual machine has ended: the fs device failed: ${why}`);
  }
});

test("what the host has run out of is found below other errors", (t) => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  t.is(shortage(new TskataError("internal", "write x", { cause: new Error("y", { cause: full }) })), "disk-full");
  const codes = { EDQUOT: "disk-full", EMFILE: "too-many-open-files", ENFILE: "too-many-open-files", ENOENT: undefined, constructor: undefined } as const;
  for (const [code, failure] of Object.entries(codes)) t.is(shortage(Object.assign(new Error(code), { code })), failure, code);
  t.is(shortage(new Error("ENOSPC")), undefined);
});

test("an explanation: what helps most comes first, logs last and only where there are lines", (t) => {
  const { cause, remedy } = FAILURES["agent-crashed"];
  t.is(
    explanation("agent-crashed", "it restarted", [
      ["hypervisor's log", ""],
      ["guest console", "one\ntwo"],
    ]),
    [
      `  likely cause: ${cause}`,
      `  what to do: ${remedy}`,
      '  more: docs/troubleshooting.md, "agent-crashed"',
      "  virtual machine: it restarted",
      "  last lines of the guest console:",
      "    one",
      "    two",
    ].join("\n"),
  );
});

test("explained: the pod's failures get their explanation, answers to a caller stay as they are", async (t) => {
  const podFolder = join(temporaryFolder(t), "pod");
  mkdirSync(podFolder);
  writeFileSync(join(podFolder, "console.log"), "\u001b[31mlast words\n");
  const image = join(podFolder, "image");
  writeFileSync(image, "whole");
  const surroundings = { podFolder, guestFiles: [image] };

  const asked = new TskataError("not-found", "container does not exist");
  t.is(explained(asked, surroundings), asked);

  const crashed = explained(new FailureError("agent-crashed", "it fell\nover", { machine: "ended", phase: { name: "boot", seconds: 1.25 } }), surroundings);
  t.true(crashed instanceof FailureError);
  const { message, phase, failure: code } = crashed as FailureError;
  t.is(code, "agent-crashed");
  t.deepEqual(phase, { name: "boot", seconds: 1.25 });
  t.regex(message, /^it fell; over\n {2}likely cause: .*\n {2}virtual machine: ended\n {2}last lines of the guest console:\n {4}\[31mlast words$/s);

  // The same end, of a guest whose files are not what they were.
  writeFileSync(`${image}.sha256`, `${"0".repeat(64)}  image\n`);
  const damaged = explained(new FailureError("agent-crashed", "it fell"), surroundings) as FailureError;
  t.is(damaged.failure, "image-corrupt");
  t.true(damaged.message.startsWith(`${image} is damaged: its checksum is not the one in image.sha256; it fell\n`), damaged.message);

  const late = await t.throwsAsync(
    explaining(podFolder, () => inPhase("exec in the guest", () => Promise.reject(new TskataError("timeout", "no answer in 3 s")))),
  );
  t.is((late as FailureError).failure, "time-out");
  t.is((late as FailureError).machine, undefined, "nothing tells which machine it is");
  t.is((late as FailureError).phase?.name, "exec in the guest");

  const full = explained(Object.assign(new Error("ENOSPC: no space left on device, open 'x'"), { code: "ENOSPC" }), surroundings) as FailureError;
  t.is(full.failure, "disk-full");
  t.false(full.message.includes("console"), "a log tells nothing of a full disk");
});

test("within: work, its failure, or the limit; what comes too late is given away", async (t) => {
  const late = (): Error => new Error("late");
  t.is(await within(1000, Promise.resolve(1), late), 1);
  await t.throwsAsync(within(1000, Promise.reject(new Error("failed")), late), { message: "failed" });
  const { promise, resolve } = Promise.withResolvers<number>();
  const discarded: number[] = [];
  await t.throwsAsync(
    within(5, promise, late, (value) => discarded.push(value)),
    { message: "late" },
  );
  resolve(7);
  await promise;
  t.deepEqual(discarded, [7]);
});

test("the image's superblock: any byte of it that changes is seen", (t) => {
  const whole = readFileSync(join(repository, "dist/guest/image.erofs")).subarray(0, 4096);
  whole.writeUInt32LE(1, 1024 + 36); // one block is all of this file
  const file = join(temporaryFolder(t), "image");
  writeFileSync(file, whole);
  t.throws(() => checkImage(file), failure("unavailable", /its superblock is damaged: wrong checksum$/));
  t.notThrows(() => checkImage(join(repository, "dist/guest/image.erofs")));
});

test("a checksum beside a file is held against it; without one nothing is said", (t) => {
  const file = join(temporaryFolder(t), "file");
  writeFileSync(file, "abc");
  t.is(checksumProblem(file), undefined);
  writeFileSync(`${file}.sha256`, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  file\n");
  t.is(checksumProblem(file), undefined);
  writeFileSync(file, "abd");
  t.is(checksumProblem(file), `${file} is damaged: its checksum is not the one in file.sha256`);
});
