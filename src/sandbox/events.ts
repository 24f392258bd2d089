/** Events of the pod for whoever asks for those after a sequence number. */
import type { ControlEvent } from "../protocols/generated/control.ts";

const KEPT = 1000;

export class EventLog {
  readonly #events: ControlEvent[] = [];
  readonly #waiters = new Set<() => void>();
  #last = 0n;

  add(type: string, containerId: string, data: object): void {
    this.#events.push({ sequence: ++this.#last, type, containerId, data: Buffer.from(JSON.stringify(data)) });
    if (this.#events.length > KEPT) this.#events.shift();
    this.#wake();
  }

  /** Waits until there is one; gives none when the caller has gone or the pod ends. */
  async after(sequence: bigint, containerId: string, signal: AbortSignal): Promise<ControlEvent[]> {
    for (;;) {
      const found = this.#events.filter((event) => event.sequence > sequence && (containerId === "" || event.containerId === containerId));
      if (found.length > 0 || signal.aborted) return found;
      await new Promise<void>((wake) => {
        const done = (): void => {
          this.#waiters.delete(done);
          signal.removeEventListener("abort", done);
          wake();
        };
        this.#waiters.add(done);
        signal.addEventListener("abort", done);
      });
    }
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }
}
