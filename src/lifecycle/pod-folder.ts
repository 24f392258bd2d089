/** A pod's folder: made before its sandbox starts, removed when nothing of it runs. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { TskataError } from "../base/errors.ts";
import type { Installation, PodPaths } from "../base/paths.ts";
import type { Config } from "../config/config.ts";
import { podSize } from "../config/sizing.ts";
import type { PodConfig } from "../control/pod-config.ts";
import { checkImage, checkKernel } from "../host/guest-files.ts";
import { chooseDriver } from "../host/probe.ts";
import type { Resources } from "../oci/spec.ts";

export interface PodPreparation {
  readonly id: string;
  readonly config: Config;
  readonly files: Installation;
  readonly resources: Resources | undefined;
  readonly annotations: Readonly<Record<string, string>>;
  readonly hostname: string | undefined;
}

/** Checks what the machine needs and writes down how it is to be started. */
export async function preparePod(paths: PodPaths, { id, config, files, resources, annotations, hostname }: PodPreparation): Promise<PodConfig> {
  const { why: _, ...hypervisor } = await chooseDriver(config.hypervisor);
  const size = podSize(config.guest, resources, annotations);
  const podConfig: PodConfig = {
    version: 1,
    id,
    hypervisor,
    jail: files.jail,
    kernel: checkKernel(config.guest.kernel ?? files.kernel).file,
    image: checkImage(config.guest.image ?? files.image).file,
    kernelParameters: config.guest.kernel_parameters,
    ...size,
    hostname: hostname ?? "",
    guestLogLevel: config.guest.log_level,
    logLevel: config.sandbox.log_level,
    fsThreads: config.sandbox.fs_threads,
    writeback: config.sandbox.writeback,
    startTimeoutMs: config.sandbox.start_timeout_s * 1000,
    callTimeoutMs: config.sandbox.call_timeout_s * 1000,
    seccomp: config.sandbox.seccomp,
  };
  mkdirSync(paths.shared, { recursive: true, mode: 0o700 });
  writeFileSync(paths.config, `${JSON.stringify(podConfig, null, 2)}\n`, { mode: 0o600 });
  return podConfig;
}

/** Removes a container's or pod's folder. What was placed below it is in another mount namespace and has gone with that. */
export function removePodFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3, retryDelay: 20 });
  } catch (error) {
    throw new TskataError("internal", `remove ${folder}`, { cause: error });
  }
}
