/** The testbed's machine: QEMU's command line, its file servers' and its kernel's; and the archive it boots from. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ArchiveFile, cpio } from "./cpio.ts";
import { loadOrder, readModuleLists, type TestbedKernel } from "./kernel.ts";
import type { Qemu } from "./qemu.ts";

/** From Debian's qemu-system-common. */
export const VIRTIOFSD = "/usr/lib/qemu/virtiofsd";
/** Where --results appears. */
export const RESULTS = "/results";

/** Descriptors QEMU inherits, connected to us: the console and the two ports. */
export const DESCRIPTORS = { console: 3, stdout: 4, stderr: 5 } as const;

/**
 * What the initramfs needs to reach the shared root and to make /tmp; all else is loaded from there. ext4 asks for crc32c by its name in the kernel's
 * cryptography, so that no list of modules says that it needs one.
 */
const EARLY_MODULES = ["virtio_pci", "virtio_console", "virtiofs", "overlay", "loop", "crc32c_generic", "ext4"];

export interface Machine {
  readonly qemu: Qemu;
  readonly kernel: string;
  readonly initramfs: string;
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly accelerator: "tcg" | "kvm";
  /** virtiofs tag to the socket of its server. */
  readonly shares: Readonly<Record<string, string>>;
  /** Further options of QEMU's. */
  readonly devices: readonly string[];
}

const PROCESSOR: Readonly<Record<Machine["accelerator"], readonly string[]>> = {
  // EPYC is the newest model that TCG boots every time (guests under TCG have it too); svm is what KVM in there runs on.
  tcg: ["-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm"],
  kvm: ["-accel", "kvm", "-cpu", "host"],
};

/**
 * Nothing runs on the first CPU of an emulated machine, which has one more for that. QEMU's XRSTOR, on whatever CPU, clears a flag of the *first* CPU's
 * without a lock (cpu_clear_ignne of target/i386), in the word in which VMRUN and #VMEXIT keep theirs: now and then one of these is lost, and a guest
 * goes on without its nested page tables, or the kernel with a guest's GS. Four busy pods lasted seconds to minutes.
 */
const FIRST_CPU_UNUSED = "isolcpus=0";

export function qemuArguments(machine: Machine): string[] {
  const emulated = machine.accelerator === "tcg";
  const shares = Object.entries(machine.shares).flatMap(([tag, socket]) => [
    ...["-chardev", `socket,id=${tag},path=${escapeCommas(socket)}`],
    ...["-device", `vhost-user-fs-pci,chardev=${tag},tag=${tag},queue-size=1024`],
  ]);
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "tskata-testbed"],
    ...["-machine", "q35,memory-backend=memory", ...PROCESSOR[machine.accelerator]],
    ...["-smp", String(machine.vcpus + (emulated ? 1 : 0)), "-m", `${machine.memoryMib}M`],
    // Shared, because virtiofsd reads and writes in it; taken from the host as it is touched.
    ...["-object", `memory-backend-memfd,id=memory,size=${machine.memoryMib}M,share=on`],
    ...["-kernel", machine.kernel, "-initrd", machine.initramfs, "-append", [...KERNEL_PARAMETERS, ...(emulated ? [FIRST_CPU_UNUSED] : [])].join(" ")],
    ...["-chardev", `socket,id=console,fd=${DESCRIPTORS.console}`, "-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci"],
    ...(["stdout", "stderr"] as const).flatMap((name, index) => [
      ...["-chardev", `socket,id=${name},fd=${DESCRIPTORS[name]}`],
      ...["-device", `virtserialport,chardev=${name},nr=${index + 1}`],
    ]),
    ...shares,
    ...machine.devices,
  ];
}

const KERNEL_PARAMETERS = [
  ...["console=ttyS0", "loglevel=4", "panic=-1"],
  // TCG gives every vCPU the host's counter, yet the kernel finds them unsynchronized now and then and falls back to the slow HPET.
  "tsc=reliable",
  // Nothing hostile runs in here, and emulated mitigations cost as much as real ones.
  ...["mitigations=off", "nokaslr", "audit=0", "nmi_watchdog=0"],
  // QEMU 10's TCG goes on with its translation of a page's old code when a file server, another process, has put new code there; but not once the
  // guest has cleared that page.
  "init_on_alloc=1",
  ...["random.trust_cpu=on", "cgroup_no_v1=all"],
];

/** virtiofsd over a read-only bind of the whole tree: in a mount namespace of its own, where it also leaves its pid file. */
export function shareArguments(socket: string, source: string, writable: boolean): string[] {
  const options = ["-o", `source=${writable ? source : "/mnt"}`, "-o", `cache=${writable ? "none" : "always"}`, "-o", "log_level=err"];
  const script = [
    ...(writable ? [] : [`mount --rbind ${shellQuote(source)} /mnt`, "mount -o remount,bind,ro /mnt"]),
    "mount -t tmpfs tmpfs /run",
    'exec "$0" "$@"',
  ];
  return [
    ...["unshare", "--mount", "--propagation", "private", "sh", "-ec", script.join("; ")],
    ...[VIRTIOFSD, `--socket-path=${socket}`, "--thread-pool-size=0", ...options],
  ];
}

export interface Job {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly marker: string;
  readonly results: boolean;
  /** Folders of the host below /tmp that stay visible. */
  readonly kept: readonly string[];
}

/** Busybox, the scripts beside this file, early modules and the job. */
export function initramfs(kernel: TestbedKernel, job: Job): Buffer {
  const { modules } = kernel;
  const early = modules === undefined ? [] : loadOrder(EARLY_MODULES, readModuleLists(modules)).map((file) => join(modules, file));
  const script = (name: string): Buffer => readFileSync(join(import.meta.dirname, name));
  const files: ArchiveFile[] = [
    { path: "bin/busybox", data: readFileSync("/bin/busybox"), mode: 0o755 },
    { path: "init", data: script("init.sh"), mode: 0o755 },
    { path: "main.sh", data: script("main.sh") },
    ...early.map((file) => ({ path: `modules/${baseName(file)}`, data: readFileSync(file) })),
    { path: "modules/order", data: lines(early.map(baseName)) },
    { path: "job/settings", data: settings(kernel, job) },
    { path: "job/kept", data: lines(job.kept) },
    { path: "job/command", data: commandScript(job) },
  ];
  return cpio(files, ["proc", "sys", "dev", "host", "changes", "root", "bare"]);
}

function settings(kernel: TestbedKernel, { marker, results }: Job): string {
  const values = { marker, results: results ? "yes" : "no", version: kernel.version, modules: kernel.modules ?? "" };
  return lines(Object.entries(values).map(([name, value]) => `${name}=${shellQuote(value)}`));
}

export function commandScript({ command, cwd, env }: Pick<Job, "command" | "cwd" | "env">): string {
  const bad = Object.keys(env).find((name) => !/^[A-Za-z_]\w*$/.test(name));
  if (bad !== undefined) throw new Error(`"${bad}" is no name of an environment variable`);
  return lines([
    `cd ${shellQuote(cwd)} || exit 127`,
    ...Object.entries(env).map(([name, value]) => `export ${name}=${shellQuote(value)}`),
    `exec ${command.map(shellQuote).join(" ")}`,
  ]);
}

/** One word for a POSIX shell. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function lines(of: readonly string[]): string {
  return of.map((line) => `${line}\n`).join("");
}

function baseName(file: string): string {
  return file.split("/").at(-1) ?? "";
}

/** In QEMU's option lists a comma is written twice. */
function escapeCommas(value: string): string {
  return value.replaceAll(",", ",,");
}
