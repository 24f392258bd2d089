/** What zod leaves to say: issues as sentences with the field's path and what was found there, and Go's nulls dropped. */
import { config } from "zod/mini";

// A parser compiled for a schema pays after hundreds of uses; a command has one.
config({ jitless: true });

interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
}
/** What a kind of issue adds: `expected`, `values`, `keys`, `minimum`, … */
type Details = Readonly<Record<string, unknown>>;

const MAX_ISSUES = 3;

/** `process.args[1]: expected a string, found a number; root: missing` */
export function sayIssues(issues: readonly Issue[], input: unknown): string {
  const said = issues.slice(0, MAX_ISSUES).map((issue) => sayIssue(issue, input));
  if (issues.length > MAX_ISSUES) said.push(`and ${issues.length - MAX_ISSUES} more`);
  return said.join("; ");
}

function sayIssue(issue: Issue, input: unknown): string {
  const found = at(input, issue.path);
  const where = sayPath(issue.path);
  const details = issue as unknown as Details;
  if (issue.code === "unrecognized_keys") return `${where}: unknown key ${sayList(details["keys"])}`;
  if (found === undefined) return `${where}: missing`;
  return `${where}: ${sayExpected(issue, details)}, found ${sayValue(found)}`;
}

function sayExpected(issue: Issue, details: Details): string {
  switch (issue.code) {
    case "invalid_type":
      return `expected ${article(String(details["expected"]))}`;
    case "invalid_value":
      return `expected ${sayList(details["values"])}`;
    case "too_small":
      return isNumberBound(details) ? `expected at least ${details["minimum"]}` : issue.message;
    case "too_big":
      return `expected at most ${details["maximum"]}`;
    default:
      return issue.message === "Invalid input" ? "not valid" : issue.message;
  }
}

/** Lengths and bounds that are not allowed themselves have a message of their own. */
function isNumberBound({ origin, inclusive }: Details): boolean {
  return (origin === "number" || origin === "int") && inclusive !== false;
}

/** `linux.namespaces[2].type`; the whole document is `(document)`. */
export function sayPath(path: readonly PropertyKey[]): string {
  let said = "";
  for (const key of path) {
    if (typeof key === "number") said += `[${key}]`;
    else if (/^[A-Za-z_$][\w$-]*$/.test(String(key))) said += said === "" ? String(key) : `.${String(key)}`;
    else said += `[${JSON.stringify(String(key))}]`;
  }
  return said === "" ? "(document)" : said;
}

function sayValue(value: unknown): string {
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return value === null ? "null" : "an object";
  if (typeof value === "number") return String(value); // TOML has nan and inf
  const json = JSON.stringify(value);
  return json.length > 80 ? `${json.slice(0, 77)}…` : json;
}

function sayList(values: unknown): string {
  const list = Array.isArray(values) ? values.map((value) => JSON.stringify(value)) : [];
  return list.length > 1 ? `${list.slice(0, -1).join(", ")} or ${list.at(-1)}` : (list[0] ?? "nothing");
}

function article(type: string): string {
  const named = type === "int" ? "whole number" : type === "record" ? "object" : type;
  return /^[aeiou]/.test(named) ? `an ${named}` : `a ${named}`;
}

function at(input: unknown, path: readonly PropertyKey[]): unknown {
  let current = input;
  for (const key of path) {
    if (typeof current !== "object" || current === null) return undefined;
    current = (current as Record<PropertyKey, unknown>)[key];
  }
  return current;
}

/** A copy without the object members that are null: Go's encoding of an empty slice, map or pointer. */
export function dropNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(dropNulls);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(kept.map(([key, member]) => [key, dropNulls(member)]));
}
