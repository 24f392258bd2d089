/** `tskata run`. */
import { startContainer, withPod } from "../lifecycle/container.ts";
import { type Created, createContainer } from "../lifecycle/create.ts";
import { attend, lossReason } from "../lifecycle/foreground.ts";
import { watchInterrupts } from "../lifecycle/interrupt.ts";
import { removeContainer } from "../lifecycle/remove.ts";
import { bundleFlags, createOptions } from "./create.ts";
import { CONTAINER_ID_HELP, type Verb, type VerbContext } from "./verb.ts";

export const verb: Verb = {
  name: "run",
  summary: "create and run a container",
  synopsis: "<container-id>",
  description: `${CONTAINER_ID_HELP}

Creates a container from a bundle, starts it, passes signals and the terminal's size on, ends with its status, and
deletes it.`,
  flags: [
    ...bundleFlags,
    { name: "detach", alias: "d", kind: "boolean", help: "detach from the container's process" },
    { name: "keep", kind: "boolean", help: "do not delete the container after it exits" },
    { name: "no-subreaper", kind: "boolean", help: "taken for compatibility with runc; there is no subreaper" },
  ],
  arguments: { least: 1, most: 1 },
  failure: "runtime run failed",
  async run(context) {
    return context.flags.boolean("detach") ? await runDetached(context) : await runAttached(context);
  },
};

async function runDetached(context: VerbContext): Promise<number> {
  const { proxy } = await createAndStart(context, true);
  proxy.unref();
  return 0;
}

async function runAttached(context: VerbContext): Promise<number> {
  const { globals, flags, logger } = context;
  const { id, proxy, state } = await createAndStart(context, false);
  const resize = async (rows: number, columns: number): Promise<void> =>
    await withPod(state, async (client) => await client.resize({ containerId: id, execId: "", rows, columns }));
  const { code, signal } = await attend({ proxy, terminal: state.terminal, resize });
  const loss = signal === "SIGKILL" ? lossReason(state) : undefined;
  if (loss !== undefined) logger.error(`container ${id} was lost: ${loss}`);
  if (!flags.boolean("keep")) await removeContainer({ root: globals.root, id, force: true, warn: (message) => logger.warning(message) });
  return code;
}

async function createAndStart(context: VerbContext, detach: boolean): Promise<Created & { readonly id: string }> {
  const { globals, logger } = context;
  const options = createOptions(context);
  const warn = (message: string): void => logger.warning(message);
  using interrupt = watchInterrupts();
  const created = await createContainer({ ...options, detach, interrupt });
  try {
    await interrupt.race(startContainer(globals.root, options.id, warn));
  } catch (error) {
    await removeContainer({ root: globals.root, id: options.id, force: true, warn });
    throw error;
  }
  return { ...created, id: options.id };
}
