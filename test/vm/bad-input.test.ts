/** Bad input gets a clear error that names it, a non-zero exit, and leaves nothing behind. */
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { describe, hangLimitMs, repository, Scratch, type Spec } from "../helpers/tskata.ts";

const scratch = new Scratch("bad input é");
test.after.always("clean up", async () => await scratch.cleanUp());

/** `run` of a bundle fails with `pattern` on stderr and nothing stays. */
async function refuses(t: ExecutionContext, bundle: string, pattern: RegExp, options: { id?: string; env?: NodeJS.ProcessEnv } = {}): Promise<void> {
  t.timeout(hangLimitMs * 2);
  const outcome = await scratch.tskata(["run", "--bundle", bundle, options.id ?? "bad"], options.env === undefined ? {} : { env: options.env });
  t.not(outcome.code, 0, describe(outcome));
  t.regex(outcome.stderr, pattern);
  t.deepEqual(scratch.leftovers(), []);
}

test.serial("config.json that is not JSON", async (t) => {
  const bundle = await scratch.bundle();
  writeFileSync(join(bundle, "config.json"), '{"ociVersion": "1.0.2",\n  "process": }');
  await refuses(t, bundle, /config\.json.*(line 2|2:)/s);
});

test.serial("config.json with a field of the wrong kind names its path", async (t) => {
  const bundle = await scratch.bundle((spec) => {
    (spec.process as unknown as Record<string, unknown>)["args"] = ["sh", 7];
  });
  await refuses(t, bundle, /process\.args[.[]1/);
});

test.serial("no config.json", async (t) => {
  const bundle = await scratch.bundle();
  rmSync(join(bundle, "config.json"));
  await refuses(t, bundle, /config\.json.*(not found|no such file)/i);
});

test.serial("no root filesystem", async (t) => {
  const bundle = await scratch.bundle((spec) => {
    spec.root.path = "nowhere";
  });
  await refuses(t, bundle, /rootfs|root\.path|nowhere/);
});

test.serial("unknown user in exec", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.running("u");
  const outcome = await scratch.exec("u", ["true"], { flags: ["--user", "nobodyknows"] });
  t.not(outcome.code, 0);
  t.regex(outcome.stderr, /unable to find user nobodyknows: no matching entries in passwd file/);
  const missing = await scratch.exec("u", ["nosuchprogram"]);
  t.is(missing.code, 255);
  t.regex(missing.stderr, /exec: \\?"nosuchprogram\\?": executable file not found in \$PATH/);
  await scratch.ok(["delete", "--force", "u"]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("binary missing", async (t) => {
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["nosuchprogram"];
  });
  await refuses(t, bundle, /exec: \\?"nosuchprogram\\?": executable file not found in \$PATH/);
});

test.serial("binary not executable", async (t) => {
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["/plain"];
  });
  writeFileSync(join(bundle, "rootfs/plain"), "not a program");
  chmodSync(join(bundle, "rootfs/plain"), 0o644);
  await refuses(t, bundle, /exec: \\?"\/plain\\?": permission denied/);
});

test.serial("ids that are not ids", async (t) => {
  const bundle = await scratch.bundle();
  for (const id of ["../escape", "a/b", "..", "with space", "", "ü"]) {
    await refuses(t, bundle, /invalid (container )?id|container id cannot be empty/i, { id });
  }
});

test.serial("a bundle on a path with spaces and UTF-8 runs", async (t) => {
  t.timeout(hangLimitMs);
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["echo", "fine"];
  }, "ein Bündel – 包");
  t.is(await scratch.ok(["run", "--bundle", bundle, "utf8"]), "fine\n");
});

test.serial("a corrupt state file is named, and delete --force removes the container", async (t) => {
  t.timeout(hangLimitMs * 2);
  await scratch.running("corrupt");
  const file = join(scratch.root, "corrupt/state.json");
  writeFileSync(file, '{"id": "corrupt", "pid": ');
  const state = await scratch.tskata(["state", "corrupt"]);
  t.not(state.code, 0);
  t.regex(state.stderr, /state\.json/);
  await scratch.ok(["delete", "--force", "corrupt"]);
  t.deepEqual(scratch.leftovers(), []);
});

test.serial("guest kernel or image missing or truncated", async (t) => {
  const bundle = await scratch.bundle((spec) => {
    spec.process.args = ["true"];
  });
  for (const name of ["vmlinux", "image.erofs"]) {
    const folder = join(scratch.folder, `guest-${name}`);
    mkdirSync(folder);
    cpSync(join(repository, "dist/guest", name), join(folder, name));
    const key = name === "vmlinux" ? "kernel" : "image";
    const config = join(folder, "config.toml");
    writeFileSync(config, `[guest]\n${key} = ${JSON.stringify(join(folder, name))}\n`);
    truncateSync(join(folder, name), 100_000);
    await refuses(t, bundle, new RegExp(`${name.replace(".", "\\.")}.*(truncated|not|shorter)`, "s"), { env: { TSKATA_CONFIG: config } });
    rmSync(join(folder, name));
    await refuses(t, bundle, new RegExp(`${name.replace(".", "\\.")}.*(ENOENT|no such file|not found|does not exist)`, "is"), {
      env: { TSKATA_CONFIG: config },
    });
  }
});

test.serial("no QEMU where it is needed", async (t) => {
  const bundle = await scratch.bundle();
  const config = join(scratch.folder, "no-qemu.toml");
  writeFileSync(config, '[hypervisor]\ndriver = "qemu"\nqemu = "/nonexistent/qemu-system-x86_64"\n');
  await refuses(t, bundle, /\/nonexistent\/qemu-system-x86_64/, { env: { TSKATA_CONFIG: config } });
});

test.serial("errors go to --log as runc's JSON", async (t) => {
  const log = join(scratch.folder, "log.json");
  await scratch.tskata(["--log", log, "--log-format", "json", "state", "nobody"]);
  const last = JSON.parse(readFileSync(log, "utf8").trim().split("\n").at(-1) ?? "") as { level: string; msg: string };
  t.deepEqual([last.level, last.msg], ["error", "container does not exist"]);
});

test.serial("host networking is refused with the way out", async (t) => {
  const bundle = await scratch.bundle((spec: Spec) => {
    spec.linux.namespaces = spec.linux.namespaces.filter((namespace) => namespace.type !== "network");
  });
  await refuses(t, bundle, /host network/i);
  t.true(existsSync(bundle));
});
