/** SIGINT, SIGTERM and SIGHUP while something is being made: the step is given up and what was made is undone. */
import { TskataError } from "../base/errors.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Interrupt extends Disposable {
  /** `work`, or a rejection as soon as a signal has come. */
  race<T>(work: Promise<T>): Promise<T>;
}

/** Watches for signals until it is disposed of. */
export function watchInterrupts(): Interrupt {
  const { promise: signalled, reject } = Promise.withResolvers<never>();
  signalled.catch(() => {}); // heard by whoever races
  const onSignal = (name: NodeJS.Signals): void => reject(new TskataError("unavailable", `interrupted by ${name}`));
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    race: async (work) => await Promise.race([work, signalled]),
    [Symbol.dispose]: () => {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}
