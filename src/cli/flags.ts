/**
 * Command-line flags as runc's parser (urfave/cli on Go's `flag`) reads them, because its callers were written for it:
 * `-name` is `--name`; `--name=value` and `--name value`; booleans only as `--name` or `--name=false`; no `-abc` groups;
 * `--` ends flags. Known flags may also follow the arguments, except for verbs whose arguments are a command of their
 * own (`exec`, `ps`): there the first argument ends flag parsing.
 */
import { UsageError } from "./usage-error.ts";

export interface FlagSpec {
  readonly name: string;
  readonly alias?: string;
  readonly kind: "boolean" | "string" | "strings" | "integer" | "duration";
  /** Shown in the help, and the value when the flag is absent. */
  readonly default?: string;
  readonly help: string;
}

export interface ParseOptions {
  readonly flags: readonly FlagSpec[];
  /** The first argument that is no flag ends flag parsing. */
  readonly stopAtArgument: boolean;
}

/** The flags given, by their long names. */
export class Flags {
  readonly #specs: ReadonlyMap<string, FlagSpec>;
  readonly #given = new Map<string, string[]>();

  constructor(specs: readonly FlagSpec[]) {
    this.#specs = new Map(specs.map((spec) => [spec.name, spec]));
  }

  /** `typed` is the name that was given: the flag's, or its alias. */
  set(spec: FlagSpec, value: string, typed: string = spec.name): void {
    checkValue(spec, value, typed);
    const before = spec.kind === "strings" ? (this.#given.get(spec.name) ?? []) : [];
    this.#given.set(spec.name, [...before, value]);
  }

  has(name: string): boolean {
    return this.#given.has(name);
  }

  boolean(name: string): boolean {
    const value = this.#given.get(name)?.at(-1);
    return value !== undefined && TRUE_WORDS.has(value);
  }

  /** The value, the default, or undefined when there is neither (or it is empty, which runc takes as absent). */
  string(name: string): string | undefined {
    const value = this.#given.get(name)?.at(-1) ?? this.#specs.get(name)?.default;
    return value === "" ? undefined : value;
  }

  strings(name: string): readonly string[] {
    return this.#given.get(name) ?? [];
  }

  integer(name: string): number | undefined {
    const value = this.string(name);
    return value === undefined ? undefined : Number(value);
  }

  milliseconds(name: string): number | undefined {
    const value = this.string(name);
    return value === undefined ? undefined : parseDuration(value);
  }
}

/** Splits `words` into flags and arguments. */
export function parseFlags(words: readonly string[], options: ParseOptions): { flags: Flags; args: string[] } {
  const flags = new Flags(options.flags);
  const args: string[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? "";
    if (word === "--") {
      args.push(...words.slice(index + 1));
      break;
    }
    const flag = splitFlag(word);
    if (flag === undefined && args.length === 0 && /^--?[-=]/.test(word)) throw new UsageError(`bad flag syntax: ${word}`);
    if (flag === undefined || (args.length > 0 && find(options.flags, flag.name) === undefined)) {
      args.push(word);
      if (!options.stopAtArgument) continue;
      args.push(...words.slice(index + 1));
      break;
    }
    index += takeFlag(flags, options.flags, flag, words[index + 1]);
  }
  return { flags, args };
}

/** Stores one flag; returns how many further words it took. */
function takeFlag(flags: Flags, specs: readonly FlagSpec[], flag: SplitFlag, next: string | undefined): number {
  const spec = find(specs, flag.name);
  if (spec === undefined) throw new UsageError(`flag provided but not defined: -${flag.name}`);
  if (spec.kind === "boolean") {
    flags.set(spec, flag.value ?? "true", flag.name);
    return 0;
  }
  const value = flag.value ?? next;
  if (value === undefined) throw new UsageError(`flag needs an argument: -${flag.name}`);
  flags.set(spec, value, flag.name);
  return flag.value === undefined ? 1 : 0;
}

interface SplitFlag {
  readonly name: string;
  readonly value: string | undefined;
}

function splitFlag(word: string): SplitFlag | undefined {
  const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(word);
  return match?.[1] === undefined ? undefined : { name: match[1], value: match[2] };
}

function find(specs: readonly FlagSpec[], name: string): FlagSpec | undefined {
  return specs.find((spec) => spec.name === name || spec.alias === name);
}

const TRUE_WORDS = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE_WORDS = new Set(["0", "f", "F", "false", "FALSE", "False"]);

function checkValue(spec: FlagSpec, value: string, typed: string): void {
  if (spec.kind === "boolean" && !TRUE_WORDS.has(value) && !FALSE_WORDS.has(value)) {
    throw new UsageError(`invalid boolean value "${value}" for -${typed}: parse error`);
  }
  const bad = (spec.kind === "integer" && !/^[+-]?\d+$/.test(value)) || (spec.kind === "duration" && parseDuration(value) === undefined);
  if (bad) throw new UsageError(`invalid value "${value}" for flag -${typed}: parse error`);
}

/** The micro sign and the Greek letter mu are two characters. */
const UNIT_MS: Record<string, number> = { ns: 1e-6, us: 1e-3, "\u00b5s": 1e-3, "\u03bcs": 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const DURATION_PART = /(\d+(?:\.\d*)?|\.\d+)([nu\u00b5\u03bcm]s|[smh])/gy;

/** Go's time.ParseDuration without its negative ones, in milliseconds: "5s", "1m30s", ".5s", "0". */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  const parts = [...text.matchAll(DURATION_PART)];
  const taken = parts.reduce((length, [part]) => length + part.length, 0);
  if (text === "" || taken !== text.length) return undefined;
  return parts.reduce((total, [, amount, unit = ""]) => total + Number(amount) * (UNIT_MS[unit] ?? 0), 0);
}
