/** images/guest.ts: the same inputs give the same bytes. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import test from "ava";
import { makeGuestImage } from "../../images/guest.ts";
import { repository, temporaryFolder } from "./helpers.ts";

async function digestOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

test("the guest image made again is the one that set-up made, byte for byte", async (t) => {
  t.timeout(120_000);
  const [installed, again] = [join(repository, "dist/guest/image.erofs"), join(temporaryFolder(t), "image.erofs")];
  const before = process.umask(0o077); // no more an input than the time and the folder's name
  try {
    await makeGuestImage(again);
  } finally {
    process.umask(before);
  }
  t.is(await digestOf(again), await digestOf(installed));
});
