/** Everything between a checkout and a running container: native parts, guest kernel, bundles, guest image, dist/. */
import { buildGuestKernel } from "../guest-kernel/build.ts";

export async function setup(): Promise<void> {
  await buildGuestKernel();
}

if (process.argv[1]?.endsWith("setup.ts") === true) await setup();
