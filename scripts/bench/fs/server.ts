/** A pod's file server by itself: server.ts FOLDER TAG SOCKET THREADS PATIENCE WRITEBACK. Runs until it is killed. */
import { native } from "../../../src/native.ts";

const [root = "", tag = "", socket = "", threads = "", patience = "", writeback = ""] = process.argv.slice(2);
const fs = native().createFs({ root, tag, threads: Number(threads), patienceUs: Number(patience), writeback: writeback === "true" });
const { ended } = native().serveVhostUser(fs, socket);
// A server that is waited for keeps no event loop alive.
setInterval(() => {}, 60_000);
const reason = await ended;
if (reason !== null) process.stderr.write(`fs server: ${reason}\n`);
process.exit(0);
