/**
 * Annotations of one container that change settings for its pod: `io.tskata.<section>.<option>` is that option of the
 * configuration file, for example `io.tskata.guest.default_memory_mib: "4096"`.
 *
 * Whoever may create containers could otherwise choose the kernel or the hypervisor's path, so an option can be changed
 * only if a regular expression in the configuration's `annotations.allowed` matches the whole of `<section>.<option>`;
 * anything else is an error, not ignored: a limit somebody believes in must be there.
 */
import { TskataError } from "../base/errors.ts";
import { OWN_VOLUMES } from "../oci/own-volumes.ts";
import { type Config, checkConfig } from "./config.ts";

const PREFIX = "io.tskata.";
/** Never open to annotations: it decides what is. */
const CLOSED = new Set(["annotations.allowed"]);

type Section = Record<string, unknown>;

/** The configuration with a pod's annotations applied. */
export function applyAnnotations(config: Config, annotations: Readonly<Record<string, string>>): Config {
  const changed = structuredClone(config) as unknown as Record<string, Section>;
  let any = false;
  for (const [key, value] of Object.entries(annotations)) {
    if (!key.startsWith(PREFIX) || key === OWN_VOLUMES) continue;
    applyOne(changed, key, value, config.annotations.allowed);
    any = true;
  }
  return any ? checkConfig(changed, `annotations ${PREFIX}*`) : config;
}

function applyOne(changed: Record<string, Section>, key: string, value: string, allowed: readonly string[]): void {
  const option = key.slice(PREFIX.length);
  const [section = "", name = "", ...rest] = option.split(".");
  const known = rest.length === 0 && Object.hasOwn(changed, section) && /^[a-z]/.test(name); // not "__proto__", which no schema would see
  if (!known || CLOSED.has(option)) throw new TskataError("invalid", `annotation ${key}: there is no such option`);
  if (!allowed.some((pattern) => new RegExp(`^(?:${pattern})$`).test(option))) {
    throw new TskataError("invalid", `annotation ${key} is not allowed: the configuration's annotations.allowed has no pattern for "${option}"`);
  }
  const target = changed[section];
  if (target !== undefined) target[name] = sameKind(target[name], value);
}

/** Everything travels as text in an annotation; the schema then checks what comes out. */
function sameKind(before: unknown, value: string): unknown {
  if (typeof before === "number" && /^-?\d+$/.test(value)) return Number(value);
  if (typeof before === "boolean" && /^(?:true|false)$/.test(value)) return value === "true";
  if (Array.isArray(before)) return value.split(/\s+/).filter((word) => word !== "");
  return value;
}
