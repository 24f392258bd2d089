/**
 * One output stream of the testbed: <marker> what the command writes <marker> tail. The marker is random, new with every
 * run, and tells what the command wrote from what the testbed says: any bytes can go between.
 */
export class MarkedStream {
  readonly #marker: Buffer;
  readonly #deliver: (bytes: Buffer) => void;
  #state: "before" | "inside" | "after" = "before";
  /** Bytes that may be the begin of a marker. */
  #held: Buffer = Buffer.alloc(0);

  constructor(marker: string, deliver: (bytes: Buffer) => void) {
    this.#marker = Buffer.from(marker);
    this.#deliver = deliver;
  }

  /** Whether the first marker has come. */
  get begun(): boolean {
    return this.#state !== "before";
  }

  /** What followed the second marker so far; undefined before it. */
  get tail(): string | undefined {
    return this.#state === "after" ? this.#held.toString("latin1") : undefined;
  }

  push(bytes: Buffer): void {
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    if (this.#state === "before" && !this.#pass(() => {})) return;
    if (this.#state === "before") this.#state = "inside";
    if (this.#state === "inside" && this.#pass(this.#deliver)) this.#state = "after";
  }

  /** Hands on what is before the next marker and drops the marker; false when there is none yet. */
  #pass(deliver: (bytes: Buffer) => void): boolean {
    const at = this.#held.indexOf(this.#marker);
    const safe = at === -1 ? this.#held.length - partialMatch(this.#held, this.#marker) : at;
    if (safe > 0) deliver(this.#held.subarray(0, safe));
    this.#held = this.#held.subarray(at === -1 ? safe : safe + this.#marker.length);
    return at !== -1;
  }
}

/** Length of the longest end of `bytes` that `marker` begins with. */
export function partialMatch(bytes: Buffer, marker: Buffer): number {
  for (let length = Math.min(bytes.length, marker.length - 1); length > 0; length--) {
    if (bytes.subarray(bytes.length - length).equals(marker.subarray(0, length))) return length;
  }
  return 0;
}
