/** How ava runs the tests. */
import { join } from "node:path";
import { repository } from "./steps.ts";

export const AVA = join(repository, "node_modules/ava/entrypoints/cli.mjs");
/** One file at a time: two cores boot one emulated machine at a time well. */
export const ONE_BY_ONE = ["--serial", "--concurrency", "1"];
/** For the processes that ava makes, too. */
export const NODE_OPTIONS = "--disable-warning=ExperimentalWarning";
