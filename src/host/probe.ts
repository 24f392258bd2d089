/** Which hypervisor driver follows from the configuration and from what this host can do. */
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { TskataError } from "../base/errors.ts";
import { FailureError } from "../base/failures.ts";
import type { Config } from "../config/config.ts";
import { KVM_DEVICE, type KvmVerdict, probeKvm } from "./kvm-probe.ts";

export type DriverChoice =
  | { readonly driver: "kvm"; readonly device: string; readonly why: string }
  /** `qemu` is an absolute path. */
  | { readonly driver: "qemu"; readonly accelerator: "kvm" | "tcg"; readonly qemu: string; readonly why: string };

/** The driver and accelerator for a pod; fails when none can work. `probe` is asked only where the answer matters. */
export async function chooseDriver(config: Config["hypervisor"], probe: () => Promise<KvmVerdict> = probeKvm): Promise<DriverChoice> {
  const { driver } = config;
  if (driver === "qemu") return chooseQemu(config, await accelerator(config, probe));
  const verdict = await probe();
  if (verdict.works) return { driver: "kvm", device: KVM_DEVICE, why: verdict.why };
  if (driver === "kvm") throw new FailureError("kvm-refused", `hypervisor.driver is "kvm", which can't work here: ${verdict.why}`);
  return chooseQemu(config, config.accelerator === "kvm" ? asked(config) : { accelerator: "tcg", why: verdict.why });
}

type Accelerator = { readonly accelerator: "kvm" | "tcg"; readonly why: string };

async function accelerator(config: Config["hypervisor"], probe: () => Promise<KvmVerdict>): Promise<Accelerator> {
  if (config.accelerator !== "auto") return asked(config);
  const { works, why } = await probe();
  return { accelerator: works ? "kvm" : "tcg", why };
}

function asked(config: Config["hypervisor"]): Accelerator {
  return { accelerator: config.accelerator === "kvm" ? "kvm" : "tcg", why: `hypervisor.accelerator is "${config.accelerator}"` };
}

function chooseQemu(config: Config["hypervisor"], { accelerator: chosen, why }: Accelerator): DriverChoice {
  const qemu = findProgram(config.qemu);
  if (qemu !== undefined) return { driver: "qemu", accelerator: chosen, qemu, why };
  throw new TskataError(
    "unavailable",
    `no hypervisor: ${config.qemu} not found or not executable, and the kvm driver is not used: ${why}; install qemu-system-x86 or set hypervisor.qemu`,
  );
}

/** A path, or a name looked up in PATH; undefined unless it can be executed. */
export function findProgram(name: string): string | undefined {
  const candidates = name.includes("/") ? [name] : (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, name));
  return candidates.find((candidate) => executable(candidate));
}

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
