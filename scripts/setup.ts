/** Everything between a checkout and a running container: native parts, bundles, guest kernel, guest image, all into dist/. */
import { buildGuestKernel } from "../guest-kernel/build.ts";
import { buildGuestImage } from "../images/guest.ts";
import { buildBundles } from "./lib/bundles.ts";
import { writeChecksums } from "./lib/checksums.ts";
import { buildNative } from "./lib/native.ts";
import { warmCompileCache } from "./lib/warm.ts";

export async function setup(): Promise<void> {
  await buildNative();
  await buildBundles();
  await buildGuestImage();
  await buildGuestKernel();
  writeChecksums();
  warmCompileCache();
}

if (process.argv[1]?.endsWith("setup.ts") === true) await setup();
