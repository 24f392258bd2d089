/** What this host can do, and which hypervisor driver follows from it. */
import { accessSync, constants, existsSync, readFileSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { TskataError } from "../base/errors.ts";
import type { Config } from "../config/config.ts";

export interface KvmFacts {
  readonly device: boolean;
  readonly permission: boolean;
  /** "vmx", "svm", or none: then /dev/kvm, if it is there at all, cannot run a stock kernel. */
  readonly cpuFlag: "vmx" | "svm" | undefined;
}

export interface DriverChoice {
  readonly driver: "qemu";
  readonly accelerator: "kvm" | "tcg";
  /** Absolute path. */
  readonly qemu: string;
  readonly why: string;
}

export function probeKvm(cpuinfo: string = readFileSync("/proc/cpuinfo", "utf8"), device = "/dev/kvm"): KvmFacts {
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.split(" ") ?? [];
  const present = existsSync(device);
  return {
    device: present,
    permission: present && allowed(device, constants.R_OK | constants.W_OK),
    cpuFlag: flags.includes("vmx") ? "vmx" : flags.includes("svm") ? "svm" : undefined,
  };
}

/** The driver and accelerator for a pod; fails when none can work. */
export function chooseDriver(config: Config["hypervisor"], kvm: KvmFacts = probeKvm()): DriverChoice {
  const qemu = findProgram(config.qemu);
  if (qemu === undefined) {
    throw new TskataError(
      "unavailable",
      `no hypervisor: ${config.qemu} not found or not executable, and no driver for /dev/kvm itself yet; install qemu-system-x86 or set hypervisor.qemu`,
    );
  }
  const { accelerator, why } = chooseAccelerator(config.accelerator, kvm);
  return { driver: "qemu", accelerator, qemu, why };
}

function chooseAccelerator(asked: Config["hypervisor"]["accelerator"], kvm: KvmFacts): { accelerator: "kvm" | "tcg"; why: string } {
  if (asked !== "auto") return { accelerator: asked, why: `hypervisor.accelerator is "${asked}"` };
  if (!kvm.device) return { accelerator: "tcg", why: "there is no /dev/kvm" };
  if (!kvm.permission) return { accelerator: "tcg", why: "/dev/kvm may not be opened for reading and writing" };
  if (kvm.cpuFlag === undefined) {
    return { accelerator: "tcg", why: "the CPU shows neither vmx nor svm: /dev/kvm is there but cannot run a stock kernel" };
  }
  return { accelerator: "kvm", why: `/dev/kvm is usable and the CPU has ${kvm.cpuFlag}` };
}

/** A path, or a name looked up in PATH; undefined unless it can be executed. */
export function findProgram(name: string): string | undefined {
  const candidates = name.includes("/") ? [name] : (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, name));
  return candidates.find((candidate) => allowed(candidate, constants.X_OK) && statSync(candidate).isFile());
}

function allowed(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}
