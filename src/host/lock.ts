/** One command at a time changes a container: a lock on its folder, which needs no room on a full disk, and which the kernel frees when its holder dies. */
import { TskataError } from "../base/errors.ts";
import { native } from "../native.ts";

/** Longer than any honest holder needs: a start under emulation takes seconds. */
const LOCK_TIMEOUT_MS = 60_000;
const POLL_MS = 10;

/** Waits for the lock; disposing the answer frees it. `what` names the locked thing in the error: "not-found" when its folder has gone. */
export async function lock(folder: string, what: string, timeoutMs: number = LOCK_TIMEOUT_MS): Promise<Disposable> {
  for (const end = performance.now() + timeoutMs; ; ) {
    const fd = tryLock(folder, what);
    if (fd !== null) return { [Symbol.dispose]: () => native().closeFd(fd) };
    if (performance.now() >= end) throw new TskataError("unavailable", `${what} is in use by another tskata command for ${timeoutMs / 1000} s`);
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}

/** Whoever held the lock may have removed what it guards. */
function tryLock(folder: string, what: string): number | null {
  try {
    return native().tryLockFile(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new TskataError("not-found", `${what} does not exist`);
    throw error;
  }
}
