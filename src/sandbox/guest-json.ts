/** JSON that the guest's agent writes and callers print: made anew here, so that it is one object on one line and nothing else. */
import { TskataError } from "../base/errors.ts";

/** Statistics of a container with every cgroup file in them are some 10 KiB. */
const MOST_BYTES = 256 * 1024;

/** Throws "unavailable" for anything but an object. */
export function guestJson(bytes: Uint8Array, what: string): Buffer {
  if (bytes.length > MOST_BYTES) throw new TskataError("unavailable", `the agent in the guest gave ${what} of ${bytes.length} bytes`);
  const text = anew(bytes);
  if (text === undefined) throw new TskataError("unavailable", `the agent in the guest gave ${what} that are no JSON object`);
  return Buffer.from(text);
}

/** JSON has an escape for any character, but JavaScript writes these as they are, and a terminal obeys them: DEL, and C1 (U+009B is `ESC [`). */
const OBEYED = /[\x7f-\x9f]/g;

/** Undefined, too, for an object that nests deeper than can be written. */
function anew(bytes: Uint8Array): string | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? escaped(JSON.stringify(value)) : undefined;
  } catch {
    return undefined;
  }
}

function escaped(json: string): string {
  return json.replace(OBEYED, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
}
