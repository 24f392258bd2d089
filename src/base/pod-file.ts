/**
 * Files of a pod's folder, opened by the privileged side: the jailed process can put anything there, so a link is not followed (it
 * would lead to the host's files), a FIFO holds nobody up, and nothing of any size is taken in whole.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";

const { O_RDONLY, O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
const MOST_BYTES = 1024 * 1024;

/** A regular file, to be read. */
export function openPodFile(file: string): number {
  return regular(file, openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
}

/** A regular file, made if it is missing, to be appended to. */
export function appendPodFile(file: string): number {
  return regular(file, openSync(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600));
}

function regular(file: string, fd: number): number {
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error(`${file} is no regular file`);
}

/** Its text, or as much of its end. */
export function readPodFile(file: string, most = MOST_BYTES): string {
  const fd = openPodFile(file);
  try {
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, most));
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, size - bytes.length));
  } finally {
    closeSync(fd);
  }
}
