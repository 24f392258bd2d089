/** The fault points of each verb: its spans, in the order of their begins, and which processes of the pod are there to be killed. */
import { type Edge, type Fault, VICTIMS, type Victim } from "../../../src/telemetry/fault.ts";

export const VERBS = ["create", "start", "exec", "kill", "delete", "join", "leave"] as const;
export type MatrixVerb = (typeof VERBS)[number];

type At = readonly [process: "cli" | "sandbox", span: string, edge: Edge];

interface Points {
  /** The span that is the whole call. */
  readonly whole: string;
  readonly cli: readonly string[];
  readonly sandbox: readonly string[];
  /** The first and the last point at which there is this victim; absent: at all. */
  readonly first?: Partial<Record<Victim, readonly At[]>>;
  readonly last?: Partial<Record<Victim, readonly At[]>>;
}

const CREATE = ["read bundle", "take the id", "make the cgroup"];
const ENTER = [
  "place root filesystem and mounts",
  "wait for the virtual machine",
  "start the proxy",
  "hooks",
  "create in the guest",
  "tell that it is created",
];
/** Once the folder of a container that leaves has gone, the command does not know its pod any more. */
const LEFT: readonly At[] = [
  ["cli", "remove the folders", "begin"],
  ["sandbox", "serve delete", "end"],
];

/** `join` is the create of a container that enters a running pod, `leave` the delete of one that others outlive. */
export const POINTS: Readonly<Record<MatrixVerb, Points>> = {
  create: {
    whole: "create",
    cli: [...CREATE, "prepare the pod", "start sandbox process", ...ENTER],
    sandbox: [
      "virtual machine",
      "start the hypervisor",
      "close the jail",
      "boot until the agent listens",
      "agent answers",
      "create sandbox in the guest",
      "serve create",
      "connect the streams",
      "launch in the guest",
    ],
    first: {
      sandbox: [
        ["cli", "start sandbox process", "end"],
        ["sandbox", "virtual machine", "begin"],
      ],
      keeper: [
        ["cli", "wait for the virtual machine", "end"],
        ["sandbox", "virtual machine", "begin"],
      ],
      hypervisor: [
        ["cli", "wait for the virtual machine", "end"],
        ["sandbox", "close the jail", "begin"],
      ],
      proxy: [
        ["cli", "start the proxy", "end"],
        ["sandbox", "serve create", "begin"],
      ],
    },
  },
  start: { whole: "start", cli: ["start in the guest", "poststart hooks"], sandbox: ["serve start"] },
  exec: {
    whole: "exec",
    cli: ["start the proxy", "hand over the descriptors", "exec in the guest"],
    sandbox: ["serve exec", "connect the streams of an exec", "launch the exec in the guest"],
  },
  kill: { whole: "kill", cli: ["kill in the guest"], sandbox: ["serve kill"] },
  delete: {
    whole: "delete",
    cli: ["end the processes", "end the pod", "remove the cgroups", "remove the folders", "poststop hooks"],
    sandbox: ["serve kill", "stop the virtual machine"],
    last: {
      sandbox: [
        ["cli", "end the pod", "begin"],
        ["sandbox", "stop the virtual machine", "end"],
      ],
      keeper: [
        ["cli", "end the pod", "begin"],
        ["sandbox", "stop the virtual machine", "end"],
      ],
      hypervisor: [
        ["cli", "end the pod", "begin"],
        ["sandbox", "stop the virtual machine", "begin"],
      ],
      proxy: [
        ["cli", "end the processes", "begin"],
        ["sandbox", "serve kill", "begin"],
      ],
    },
  },
  join: {
    whole: "create",
    cli: [...CREATE, "join the pod", ...ENTER],
    sandbox: [],
    first: {
      sandbox: [["cli", "join the pod", "end"]],
      keeper: [["cli", "join the pod", "end"]],
      hypervisor: [["cli", "join the pod", "end"]],
      proxy: [["cli", "start the proxy", "end"]],
    },
  },
  leave: {
    whole: "delete",
    cli: ["end the processes", "leave the pod", "remove the cgroups", "remove the folders", "poststop hooks"],
    sandbox: ["serve delete"],
    last: {
      sandbox: LEFT,
      keeper: LEFT,
      hypervisor: LEFT,
      proxy: [["cli", "end the processes", "begin"]],
    },
  },
};

/** Every point of a verb with every victim that is there. */
export function faultsOf(verb: MatrixVerb): Fault[] {
  const { whole, cli, sandbox, first = {}, last = {} } = POINTS[verb];
  const points = [
    ...[["cli", whole, "begin"], ...edges("cli", cli), ["cli", whole, "end"]],
    ...edges("sandbox", sandbox).filter((point) => !(verb === "create" && point[1] === "virtual machine" && point[2] === "end")),
    ...(verb === "create" ? [["sandbox", "virtual machine", "end"]] : []),
  ] as At[];

  return points.flatMap((point, index) =>
    VICTIMS.filter((victim) => isIn(points, index, first[victim], (at) => index >= at) && isIn(points, index, last[victim], (at) => index <= at))
      .filter((victim) => verb !== "create" || victim !== "proxy" || point[1] !== "virtual machine")
      .map((victim) => ({ process: point[0], span: point[1], edge: point[2], victim })),
  );
}

function edges(process: "cli" | "sandbox", spans: readonly string[]): At[] {
  return spans.flatMap((span): At[] => [
    [process, span, "begin"],
    [process, span, "end"],
  ]);
}

/** Bounds hold for the points of their own process; a process without one has no such victim. */
function isIn(points: readonly At[], index: number, bounds: readonly At[] | undefined, holds: (at: number) => boolean): boolean {
  if (bounds === undefined) return true;
  const process = points[index]?.[0];
  const bound = bounds.find((one) => one[0] === process);
  return bound !== undefined && holds(points.findIndex((point) => point.join() === bound.join()));
}
