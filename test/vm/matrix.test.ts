/** The short form of the crash matrix (docs/reliability.md); `npm run matrix` does all of it. */
import test from "ava";
import { runCell } from "../helpers/matrix/cell.ts";
import { shortCells } from "../helpers/matrix/cells.ts";
import { hangLimitMs, Scratch } from "../helpers/tskata.ts";

const scratch = new Scratch("matrix");
test.after.always("clean up", async () => await scratch.cleanUp());

for (const [index, cell] of shortCells().entries()) {
  test.serial(cell.name, async (t) => {
    t.timeout(hangLimitMs * 2);
    t.deepEqual(await runCell(scratch, cell, `cell-${index}`), []);
  });
}
