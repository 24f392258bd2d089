/** src/cli/quick-state.ts: `state` answered without the rest of the command line, word for word the same; the rest is left alone. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { stateOf, storeState, temporaryFolder, tskata, tskataEach } from "./helpers.ts";

test("the answer is the one of the whole command line, and so are the failures", async (t) => {
  const root = temporaryFolder(t);
  storeState(root, stateOf(root, { annotations: { a: "b" } }));
  storeState(root, stateOf(root, { id: "damaged" }));
  writeFileSync(join(root, "damaged/state.json"), "{}");
  const calls = [
    ["state", "box"],
    ["state", "nobody"],
    ["state", "damaged"],
    ["state"],
    ["state", "-x", "box"],
    ["state", "box", "more"],
    ["state", "--help"],
  ].map((words) => ["--root", root, ...words]);
  const whole = await tskataEach(calls); // never asks quick-state
  const clockless = (text: string): string => text.replace(/time="[^"]*"/g, "");
  for (const [index, words] of calls.entries()) {
    const { code, stdout, stderr } = await tskata(...words);
    t.is(code, whole[index]?.code ?? -1, words.join(" "));
    t.is(stdout, whole[index]?.stdout ?? "", words.join(" "));
    t.is(clockless(stderr), clockless(whole[index]?.stderr ?? ""), words.join(" "));
  }
  t.is(whole[0]?.code, 0);
  t.true(whole.slice(1, -1).every(({ code }) => code !== 0));
});
