/** A program that answers each line of its stdin by one of its stdout. */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";

export class Dialogue {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new Error("no stdout");
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** The next line that it says, without being asked. */
  async next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    return done === true ? "nothing more" : value;
  }

  async ask(question = ""): Promise<string> {
    this.#child.stdin?.write(`${question}\n`);
    return await this.next();
  }

  /** Lets it end, and waits for that. */
  async end(): Promise<void> {
    this.#child.stdin?.end();
    while ((await this.next()) !== "nothing more");
  }
}
