/** CLOCK_BOOTTIME, whose zero is the kernel's start: the clock of guest spans. */

/** A guest is never suspended, so the monotonic clock, which node reads, is the same. */
export function boottimeNs(): bigint {
  return process.hrtime.bigint();
}
