/** What `tskata state` prints. */
import { listedState } from "../oci/state.ts";
import { readState } from "../oci/state-file.ts";
import type { Globals } from "./verb.ts";

export function stateText({ root }: Globals, id: string): string {
  return JSON.stringify(listedState(readState(root, id), ""), null, 2);
}
