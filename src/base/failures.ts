/**
 * Why a pod did not start or does not answer, by kind: its likely cause and what to do about it. docs/troubleshooting.md tells the same
 * table to users, and a unit test holds the two against each other.
 */
import { TskataError } from "./errors.ts";

interface Advice {
  readonly cause: string;
  readonly remedy: string;
}

export const FAILURES = {
  "kernel-panic": {
    cause: "the guest kernel met what it cannot go on from: a wrong kernel parameter, or a kernel and an image that do not fit each other",
    remedy: "look at the console's last lines, and at guest.kernel_parameters, guest.kernel and guest.image in the configuration",
  },
  "agent-silent": {
    cause: "the guest hangs, or is too slow for the time it has: an emulated machine, or a host under load",
    remedy: "look at the console's last lines; run `tskata check`; if the guest was only slow, raise sandbox.start_timeout_s",
  },
  "agent-crashed": {
    cause: "the guest image does not fit this version of tskata, or guest.kernel_parameters change how the agent starts",
    remedy: "look at the console's last lines; leave guest.image and guest.kernel_parameters out of the configuration, or install tskata anew",
  },
  "guest-restarted": {
    cause: "something in the guest restarted or stopped the machine, or the guest kernel failed before it could write to the console",
    remedy: "look at the console's last lines, and at guest.kernel_parameters, guest.kernel and guest.image in the configuration",
  },
  "guest-out-of-memory": {
    cause: "the virtual machine has less memory than the guest kernel and the agent need",
    remedy: "raise guest.base_memory_mib in the configuration (its default is enough), or the container's memory limit",
  },
  "image-corrupt": {
    cause: "the guest's files on this host are damaged: a copy cut short, or a faulty disk",
    remedy: "install tskata anew, or replace the file that guest.image or guest.kernel names; `tskata check` tells which files are whole",
  },
  "kvm-refused": {
    cause: "the processor's virtualization is off in the firmware, the kvm module is not loaded, or this host is itself a virtual machine without nesting",
    remedy: 'run `tskata check`; make /dev/kvm work for root, or set hypervisor.driver to "auto" to have the machine emulated',
  },
  "hypervisor-failed": {
    cause: "the program or the kernel interface that runs the virtual machine has failed, not the guest",
    remedy: "look at the hypervisor's last lines; run `tskata check`; look at the section [hypervisor] of the configuration",
  },
  "sandbox-died": {
    cause: "the pod's process on the host was killed: by hand, by the kernel for want of memory, or by its jail",
    remedy: "look at the host's kernel log for an out-of-memory kill; for a system call that the jail does not know see docs/security.md",
  },
  "disk-full": {
    cause: "the file system that holds the containers' state (--root) has no room or no inodes left, or its quota is used up",
    remedy: "make room there (`df`, `df -i`), run `tskata gc` to remove what crashed containers have left, and try again",
  },
  "too-many-open-files": {
    cause: "the limit of open files that commands and pods run with is too low, or the host has no more to give",
    remedy: "raise it for whoever runs tskata (`ulimit -n`; LimitNOFILE= of a systemd unit), or the host's (`sysctl fs.file-max`), and try again",
  },
  "time-out": {
    cause: "the guest or the pod's process on the host is stopped, or too busy to answer",
    remedy: "look at the load of the host and of the pod; raise sandbox.call_timeout_s, or end the pod with `tskata delete --force`",
  },
} as const satisfies Readonly<Record<string, Advice>>;

export type FailureCode = keyof typeof FAILURES;

export function isFailureCode(word: string): word is FailureCode {
  return Object.hasOwn(FAILURES, word);
}

/** A named stretch of work (a span's name) that an error came out of, and how long it had taken. */
export interface Phase {
  readonly name: string;
  readonly seconds: number;
}

export interface Circumstances {
  /** How the virtual machine ended or stands, and what runs it. */
  readonly machine?: string | undefined;
  readonly phase?: Phase | undefined;
  readonly cause?: unknown;
}

/** What became of a machine whose guest does not answer. */
export const STILL_RUNS = "still runs when the time is over";

/** An error of the table. Its message is one sentence, until `explained` has added the rest. */
export class FailureError extends TskataError {
  readonly failure: FailureCode;
  readonly machine: string | undefined;
  readonly phase: Phase | undefined;

  constructor(failure: FailureCode, message: string, { machine, phase, cause }: Circumstances = {}) {
    super("unavailable", message, cause === undefined ? {} : { cause });
    this.name = "FailureError";
    this.failure = failure;
    this.machine = machine;
    this.phase = phase;
  }
}

/** A log's name and its last lines. */
export type Excerpt = readonly [name: string, text: string];

/** The lines below an error's first, the more useful ones first: a caller may show no more than the beginning. */
export function explanation(failure: FailureCode, machine: string | undefined, excerpts: readonly Excerpt[]): string {
  const { cause, remedy } = FAILURES[failure];
  const lines = [`  likely cause: ${cause}`, `  what to do: ${remedy}`, `  more: docs/troubleshooting.md, "${failure}"`];
  if (machine !== undefined) lines.push(`  virtual machine: ${machine}`);
  for (const [name, text] of excerpts) {
    if (text !== "") lines.push(`  last lines of the ${name}:`, ...text.split("\n").map((line) => `    ${line}`));
  }
  return lines.join("\n");
}

/** `in phase "boot" after 2.3 s`. */
export function sayPhase({ name, seconds }: Phase): string {
  return `in phase "${name}" after ${seconds.toFixed(1)} s`;
}

/** What the host has run out of, by errno. */
const SHORTAGES: Readonly<Record<string, FailureCode>> = {
  ENOSPC: "disk-full",
  EDQUOT: "disk-full",
  EMFILE: "too-many-open-files",
  ENFILE: "too-many-open-files",
};

/** The failure for what the host has run out of, if that is at the bottom of an error. */
export function shortage(error: unknown): FailureCode | undefined {
  for (let current = error, depth = 0; current instanceof Error && depth < 16; current = current.cause, depth++) {
    const { code } = current as NodeJS.ErrnoException;
    if (code !== undefined && Object.hasOwn(SHORTAGES, code)) return SHORTAGES[code];
  }
  return undefined;
}
