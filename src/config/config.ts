/**
 * The administrator's settings: /etc/tskata/config.toml, or the file --config or TSKATA_CONFIG names.
 *
 * Strict: an unknown key is an error, because a misspelled limit would be no limit. docs/configuration.md tells of every
 * option; a unit test holds the two against each other.
 */
import { readFileSync } from "node:fs";
import { parse as parseToml, TomlError } from "smol-toml";
import * as z from "zod/mini";
import { TskataError } from "../base/errors.ts";
import { DEFAULT_CONFIG } from "../base/paths.ts";
import { sayIssues } from "../base/schema.ts";

const positive = z.int().check(z.minimum(1));
const notNegative = z.int().check(z.minimum(0));
const path = z.string().check(z.startsWith("/", "expected an absolute path"));
const logLevel = z.enum(["trace", "debug", "info", "warn", "error"]);

const hypervisorSchema = z.strictObject({
  driver: z._default(z.enum(["auto", "kvm", "qemu"]), "auto"),
  /** A name is looked up in PATH. */
  qemu: z._default(z.string().check(z.minLength(1)), "qemu-system-x86_64"),
  accelerator: z._default(z.enum(["auto", "kvm", "tcg"]), "auto"),
});

const guestSchema = z.strictObject({
  kernel: z.optional(path),
  image: z.optional(path),
  kernel_parameters: z._default(z.array(z.string().check(z.regex(/^[\x21-\x7e]+$/, "expected one word"))), () => []),
  log_level: z._default(logLevel, "info"),
  default_vcpus: z._default(positive, 1),
  base_vcpus: z._default(notNegative, 0),
  max_vcpus: z._default(positive, 32),
  default_memory_mib: z._default(positive, 2048),
  base_memory_mib: z._default(positive, 256),
  max_memory_mib: z._default(notNegative, 0),
});

const sandboxSchema = z.strictObject({
  log_level: z._default(logLevel, "info"),
  fs_threads: z._default(positive, 2),
  writeback: z._default(z.boolean(), true),
  start_timeout_s: z._default(positive, 120),
  call_timeout_s: z._default(positive, 120),
  stop_timeout_s: z._default(positive, 10),
  seccomp: z._default(z.enum(["enforce", "log", "off"]), "enforce"),
});

const annotationsSchema = z.strictObject({
  allowed: z._default(z.array(z.string().check(z.refine(isPattern, "expected a regular expression"))), () => []),
});

const configSchema = z.strictObject({
  hypervisor: z._default(hypervisorSchema, () => hypervisorSchema.parse({})),
  guest: z._default(guestSchema, () => guestSchema.parse({})),
  sandbox: z._default(sandboxSchema, () => sandboxSchema.parse({})),
  annotations: z._default(annotationsSchema, () => annotationsSchema.parse({})),
});

export type Config = z.infer<typeof configSchema>;

/** The defaults, for documentation and tests. */
export function defaultConfig(): Config {
  return configSchema.parse({});
}

/** Reads the file that `named` or TSKATA_CONFIG names, which must exist, or the default one, which need not. */
export function loadConfig(named: string | undefined = process.env["TSKATA_CONFIG"]): Config {
  const asked = named !== undefined && named !== "";
  const file = asked ? named : DEFAULT_CONFIG;
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (!asked && (error as NodeJS.ErrnoException).code === "ENOENT") return defaultConfig();
    throw new TskataError("invalid", `read the configuration ${file}`, { cause: error });
  }
  return parseConfig(text, file);
}

export function parseConfig(text: string, file: string): Config {
  let value: unknown;
  try {
    value = parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const what = error.message.split("\n")[0]?.replace(/^Invalid TOML document: /, "");
    throw new TskataError("invalid", `${file} is not TOML: line ${error.line}, column ${error.column}: ${what}`);
  }
  return checkConfig(value, file);
}

export function checkConfig(value: unknown, from: string): Config {
  const result = configSchema.safeParse(value);
  if (result.success) return result.data;
  throw new TskataError("invalid", `${from}: ${sayIssues(result.error.issues, value)}`);
}

function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}
