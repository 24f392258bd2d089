/** src/telemetry/fault.ts: how a fault point is named and reached; and the matrix, which must know every span. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, globSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { parseFault, selectedFault } from "../../src/telemetry/fault.ts";
import { faultsOf, POINTS, VERBS } from "../helpers/matrix/points.ts";
import { failure, repository, temporaryFolder } from "./helpers.ts";

test("a fault point's name: process, span, edge, victim", (t) => {
  t.deepEqual(parseFault("cli:create in the guest:end"), { process: "cli", span: "create in the guest", edge: "end", victim: "cli" });
  t.deepEqual(parseFault("sandbox:serve exec:begin:hypervisor"), { process: "sandbox", span: "serve exec", edge: "begin", victim: "hypervisor" });
  for (const none of [undefined, ""]) t.is(parseFault(none), undefined);
  for (const bad of ["x", "guest:boot:begin", "cli::begin", "cli:create:middle", "cli:create:end:agent", "cli:create:end:cli:more"]) {
    t.throws(
      () => parseFault(bad),
      failure("invalid", `TSKATA_FAULT="${bad}": expected <cli|sandbox>:<span>:<begin|end>[:<cli|sandbox|keeper|hypervisor|proxy>]`),
    );
  }
  t.is(selectedFault("sandbox", "cli:create:end"), undefined, "another process's");
  t.is(selectedFault("guest", "cli:create:end"), undefined);
  t.is(selectedFault("cli", "cli:create:end")?.span, "create");
});

// The sandbox process is started by create, which so has the variable of every verb's points there.
test("no span of the sandbox process is create's and another verb's", (t) => {
  const others = VERBS.filter((verb) => verb !== "create").flatMap((verb) => POINTS[verb].sandbox);
  t.deepEqual(
    others.filter((span) => POINTS.create.sandbox.includes(span)),
    [],
  );
});

/** A process that goes through a span, and says where it is. */
function walker(t: ExecutionContext, folder: string, name: "cli" | "sandbox", fault: string): { child: ChildProcess; said: () => string } {
  const script = `const { SpanRecorder } = await import(${JSON.stringify(join(repository, "src/telemetry/spans.ts"))});
const spans = new SpanRecorder(${JSON.stringify(name)});
await spans.measure("other", () => {});
await spans.measure("work", () => console.log("in"));
await spans.measure("work", () => console.log("again"));`;
  const env = { ...process.env, TSKATA_FAULT: fault };
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  t.teardown(() => child.kill("SIGKILL"));
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (text += String(part)));
  return { child, said: () => text };
}

test("the command line is killed where the variable says, and nowhere else", async (t) => {
  const folder = temporaryFolder(t);
  for (const [fault, said] of [
    ["cli:work:begin", ""],
    ["cli:work:end", "in\n"],
  ] as const) {
    const { child, said: text } = walker(t, folder, "cli", fault);
    const [, signal] = await once(child, "close");
    t.is(signal, "SIGKILL");
    t.is(text().replace(/^TSKATA_FAULT: cli:work:\w+: kills cli \d+\n/m, ""), said);
    t.regex(text(), /^TSKATA_FAULT/m);
  }
  for (const fault of ["", "cli:none:begin", "sandbox:work:begin"]) {
    const { child, said } = walker(t, folder, "cli", fault);
    t.deepEqual(await once(child, "close"), [0, null]);
    t.is(said(), "in\nagain\n");
  }
});

test("a victim that is not there is told", async (t) => {
  const { child, said } = walker(t, temporaryFolder(t), "cli", "cli:work:begin:proxy");
  t.deepEqual(await once(child, "close"), [0, null]);
  t.is(said(), "TSKATA_FAULT: cli:work:begin: there is no proxy\nin\nagain\n");
});

test("the sandbox process stands still until the file is gone, once", async (t) => {
  const folder = temporaryFolder(t);
  const { child, said } = walker(t, folder, "sandbox", "sandbox:work:end");
  const file = join(folder, "fault");
  while (!existsSync(file) || said() !== "in\n") await after(5);
  await after(200);
  t.is(child.exitCode, null);
  t.is(said(), "in\n");
  rmSync(file);
  t.deepEqual(await once(child, "close"), [0, null]);
  t.is(said(), "in\nagain\n");
  t.false(existsSync(file));
});

test("the matrix knows every span of the command line and of the sandbox process", (t) => {
  const folders = { cli: "src/lifecycle/*.ts", sandbox: "src/sandbox/*.ts" } as const;
  for (const name of ["cli", "sandbox"] as const) {
    const files = globSync(folders[name], { cwd: repository }).map((file) => readFileSync(join(repository, file), "utf8"));
    const named = files.flatMap((text) => [...text.matchAll(/\.(?:measure|begin)\(\s*"([^"]+)"/g)].map((match) => match[1]));
    const known = VERBS.flatMap((verb) => (name === "cli" ? [POINTS[verb].whole, ...POINTS[verb].cli] : POINTS[verb].sandbox));
    t.deepEqual([...new Set(named)].sort(), [...new Set(known)].sort());
  }
});

test("the victims of a point are the processes that are there", (t) => {
  const at = (verb: (typeof VERBS)[number], span: string, edge: string, process = "cli"): string[] =>
    faultsOf(verb)
      .filter((fault) => fault.process === process && fault.span === span && fault.edge === edge)
      .map(({ victim }) => victim);
  t.deepEqual(at("create", "create", "begin"), ["cli"]);
  t.deepEqual(at("create", "start sandbox process", "end"), ["cli", "sandbox"]);
  t.deepEqual(at("create", "wait for the virtual machine", "end"), ["cli", "sandbox", "keeper", "hypervisor"]);
  t.deepEqual(at("create", "create", "end"), ["cli", "sandbox", "keeper", "hypervisor", "proxy"]);
  t.deepEqual(at("create", "virtual machine", "begin", "sandbox"), ["cli", "sandbox", "keeper"]);
  t.deepEqual(at("create", "virtual machine", "end", "sandbox"), ["cli", "sandbox", "keeper", "hypervisor"]);
  t.deepEqual(at("delete", "delete", "begin"), ["cli", "sandbox", "keeper", "hypervisor", "proxy"]);
  t.deepEqual(at("delete", "delete", "end"), ["cli"]);
  t.deepEqual(at("leave", "remove the folders", "begin"), ["cli", "sandbox", "keeper", "hypervisor"]);
  t.deepEqual(at("leave", "delete", "end"), ["cli"], "the others are there, but nothing says any more who they are");
  t.deepEqual(at("exec", "serve exec", "end", "sandbox"), ["cli", "sandbox", "keeper", "hypervisor", "proxy"]);
});
