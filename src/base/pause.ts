/** Waiting where nothing else may go on meanwhile: no timer, no event is served. */

export function pauseSync(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
