/** The findings behind `tskata check`: each a line with what was found, whether containers can run, and what to do. */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { errorChain } from "../base/errors.ts";
import { installation } from "../base/paths.ts";
import { OCI_VERSION, TSKATA_VERSION } from "../base/version.ts";
import type { Config } from "../config/config.ts";
import { hostSize } from "../config/sizing.ts";
import { cgroupMode, hierarchies } from "./cgroup.ts";
import { checkImage, checkKernel } from "./guest-files.ts";
import { chooseDriver, probeKvm } from "./probe.ts";

export interface Finding {
  readonly name: string;
  /** "slow": containers run, but not as they could. */
  readonly status: "ok" | "slow" | "missing";
  readonly detail: string;
}

export function checkHost(config: Config): Finding[] {
  const files = installation();
  return [
    { name: "tskata", status: "ok", detail: `${TSKATA_VERSION}, runtime-spec ${OCI_VERSION}, node ${process.versions.node}` },
    checkRoot(),
    checkHostSize(),
    checkKvm(),
    attempt("driver", () => {
      const choice = chooseDriver(config.hypervisor);
      const status = choice.accelerator === "kvm" ? "ok" : "slow";
      return {
        name: "driver",
        status,
        detail: `${choice.driver} with ${choice.accelerator === "kvm" ? "KVM" : "TCG (emulation, about 10 times slower)"}: ${choice.why}`,
      };
    }),
    attempt("qemu", () => ({ name: "qemu", status: "ok", detail: qemuVersion(chooseDriver(config.hypervisor).qemu) })),
    attempt("guest kernel", () => sized("guest kernel", checkKernel(config.guest.kernel ?? files.kernel))),
    attempt("guest image", () => sized("guest image", checkImage(config.guest.image ?? files.image))),
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

function checkKvm(): Finding {
  const kvm = probeKvm();
  const device = kvm.device ? (kvm.permission ? "/dev/kvm can be opened" : "/dev/kvm may not be opened") : "no /dev/kvm";
  const status = kvm.permission && kvm.cpuFlag !== undefined ? "ok" : "slow";
  return { name: "kvm", status, detail: `${device}; CPU flag: ${kvm.cpuFlag ?? "neither vmx nor svm"}` };
}

function qemuVersion(qemu: string): string {
  const { stdout } = spawnSync(qemu, ["--version"], { encoding: "utf8" });
  const version = /version (\S+)/.exec(stdout ?? "")?.[1];
  if (version === undefined) throw new Error(`${qemu} --version gave no version`);
  return `${qemu}, version ${version}`;
}

function sized(name: string, { file, bytes }: { file: string; bytes: number }): Finding {
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
