/** The findings behind `tskata check`: each a line with what was found, whether containers can run, and what to do. */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { errorChain } from "../base/errors.ts";
import { installation } from "../base/paths.ts";
import { OCI_VERSION, TSKATA_VERSION } from "../base/version.ts";
import type { Config } from "../config/config.ts";
import { hostSize } from "../config/sizing.ts";
import { cgroupMode, hierarchies } from "./cgroup.ts";
import { checkImage, checkKernel, checksumProblem, type GuestFile } from "./guest-files.ts";
import { probeKvm } from "./kvm-probe.ts";
import { chooseDriver, type DriverChoice, findProgram } from "./probe.ts";

export interface Finding {
  readonly name: string;
  /** "slow": containers run, but not as they could. */
  readonly status: "ok" | "slow" | "missing";
  readonly detail: string;
}

export async function checkHost(config: Config): Promise<Finding[]> {
  const files = installation();
  return [
    { name: "tskata", status: "ok", detail: `${TSKATA_VERSION}, runtime-spec ${OCI_VERSION}, node ${process.versions.node}` },
    checkRoot(),
    checkHostSize(),
    await checkKvm(),
    await checkDriver(config),
    attempt("qemu", () => checkQemu(config)),
    attempt("guest kernel", () => whole("guest kernel", checkKernel(config.guest.kernel ?? files.kernel))),
    attempt("guest image", () => whole("guest image", checkImage(config.guest.image ?? files.image))),
    ...[files.addon, files.proxy, files.jail, files.sandbox].map(checkPart),
    checkCgroups(),
  ];
}

export function canRun(findings: readonly Finding[]): boolean {
  return findings.every((finding) => finding.status !== "missing");
}

function attempt(name: string, look: () => Finding): Finding {
  try {
    return look();
  } catch (error) {
    return { name, status: "missing", detail: errorChain(error) };
  }
}

function checkRoot(): Finding {
  const root = process.geteuid?.() === 0;
  return { name: "privilege", status: root ? "ok" : "missing", detail: root ? "root" : "not root: containers need it" };
}

function checkHostSize(): Finding {
  const { cpus, memoryMib } = hostSize();
  return { name: "host", status: "ok", detail: `${cpus} CPUs, ${memoryMib} MiB` };
}

async function checkKvm(): Promise<Finding> {
  const { works, why } = await probeKvm();
  return { name: "kvm", status: works ? "ok" : "slow", detail: why };
}

async function checkDriver(config: Config): Promise<Finding> {
  try {
    const choice = await chooseDriver(config.hypervisor);
    const emulated = choice.driver === "qemu" && choice.accelerator === "tcg";
    return { name: "driver", status: emulated ? "slow" : "ok", detail: `${driverName(choice)}: ${choice.why}` };
  } catch (error) {
    return { name: "driver", status: "missing", detail: errorChain(error) };
  }
}

function driverName(choice: DriverChoice): string {
  if (choice.driver === "kvm") return "kvm";
  return `qemu with ${choice.accelerator === "kvm" ? "KVM" : "TCG (emulation, about 10 times slower)"}`;
}

/** Needed by the qemu driver alone; that it is needed and missing the driver's line says. */
function checkQemu(config: Config): Finding {
  const qemu = findProgram(config.hypervisor.qemu);
  if (qemu === undefined) return { name: "qemu", status: "ok", detail: `${config.hypervisor.qemu} is not there: the kvm driver alone can be used` };
  return { name: "qemu", status: "ok", detail: qemuVersion(qemu) };
}

function qemuVersion(qemu: string): string {
  const { stdout } = spawnSync(qemu, ["--version"], { encoding: "utf8" });
  const version = /version (\S+)/.exec(stdout ?? "")?.[1];
  if (version === undefined) throw new Error(`${qemu} --version gave no version`);
  return `${qemu}, version ${version}`;
}

/** Every byte of it, where its checksum is known. */
function whole(name: string, { file, bytes }: GuestFile): Finding {
  const problem = checksumProblem(file);
  if (problem !== undefined) return { name, status: "missing", detail: problem };
  return { name, status: "ok", detail: `${file}, ${(bytes / 2 ** 20).toFixed(1)} MiB` };
}

function checkPart(file: string): Finding {
  const present = existsSync(file);
  return { name: "installation", status: present ? "ok" : "missing", detail: present ? file : `${file} is not there: run npm start in the sources` };
}

function checkCgroups(): Finding {
  const mounted = hierarchies();
  const mode = cgroupMode(mounted);
  if (mode === "none") return { name: "cgroups", status: "missing", detail: "no cgroup filesystem is mounted" };
  const readOnly = mounted.filter(({ mountPoint }) => !writable(mountPoint));
  const detail = `${mode}, ${mounted.length} ${mounted.length === 1 ? "hierarchy" : "hierarchies"}`;
  if (readOnly.length === 0) return { name: "cgroups", status: "ok", detail };
  return { name: "cgroups", status: "missing", detail: `${detail}; not writable: ${readOnly.map(({ mountPoint }) => mountPoint).join(", ")}` };
}

function writable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
