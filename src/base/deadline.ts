/** Waiting no longer than one may. */

/** `work`, or the error of `late` when it takes longer; what comes after that goes to `discard`. */
export async function within<T>(milliseconds: number, work: Promise<T>, late: () => Error, discard: (value: T) => void = () => {}): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let over = false;
  const limit = new Promise<never>((_, fail) => {
    timer = setTimeout(() => {
      over = true;
      fail(late());
    }, milliseconds);
  });
  work.then((value) => over && discard(value)).catch(() => {}); // whoever waits hears of a failure, and nobody after the limit
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
