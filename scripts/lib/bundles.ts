/** Bundles: one CommonJS file a program, which node loads faster than a tree of modules; and the pinned node beside them. */
import { linkSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { build, type Plugin } from "esbuild";
import { install } from "./native.ts";
import { cachedStep, distFolder, hashOf, pinnedNode, repository } from "./steps.ts";

const BUNDLES = {
  "src/cli/main.ts": "lib/tskata.cjs",
  "src/cli/command-line.ts": "lib/command-line.cjs",
  "src/sandbox/main.ts": "lib/sandbox.cjs",
  "agent/main.ts": "guest/agent.cjs",
} as const;

/** What main.ts loads when it must is no part of its bundle. */
const apart: Plugin = {
  name: "apart",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/command-line\.ts$/ }, ({ kind }) => (kind === "dynamic-import" ? { path: "./command-line.cjs", external: true } : undefined));
  },
};

export async function buildBundles(): Promise<void> {
  const products = Object.values(BUNDLES).map((file) => join(distFolder, file));
  await cachedStep("bundles", hashOf("src", "agent", "package-lock.json", "scripts/lib/bundles.ts"), products, async () => {
    for (const [entry, file] of Object.entries(BUNDLES)) await bundle(join(repository, entry), join(distFolder, file));
  });
  installNode();
}

async function bundle(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    target: "node24",
    format: "cjs",
    plugins: [apart],
    supported: { "dynamic-import": false }, // require is the faster, and there is no other kind of module
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    logLevel: "warning",
    define: { "import.meta.filename": "__filename", "import.meta.dirname": "__dirname" },
  });
}

/** A link where that is possible: the file has 120 MB. */
function installNode(): void {
  const target = join(distFolder, "lib/node");
  mkdirSync(join(distFolder, "lib"), { recursive: true });
  if (statSync(target, { throwIfNoEntry: false })?.size === statSync(pinnedNode).size) return;
  rmSync(target, { force: true });
  try {
    linkSync(pinnedNode, target);
  } catch {
    install(pinnedNode, target);
  }
}
