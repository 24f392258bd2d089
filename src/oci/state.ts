/** A container's state as others see it: the runtime-spec's state (hooks), and runc's longer form (`state`, `list`). */
import { OCI_VERSION } from "../base/version.ts";
import { readExit, type StateFile, type Status, statusOf } from "./state-file.ts";

/** Put into the annotations of a stopped container whose memory limit ended it. */
const OOM_ANNOTATION = "io.tskata.oom-killed";
/** Why a container ended when it was not its own doing: the sandbox or the virtual machine died. */
const REASON_ANNOTATION = "io.tskata.stop-reason";

/** runtime.md "State". */
export interface OciState {
  readonly ociVersion: string;
  readonly id: string;
  readonly status: Status;
  readonly pid?: number;
  readonly bundle: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** What `state` and `list --format json` print, in runc's order of keys. */
export interface ListedState {
  readonly ociVersion: string;
  readonly id: string;
  readonly pid: number;
  readonly status: Status;
  readonly bundle: string;
  readonly rootfs: string;
  readonly created: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly owner: string;
}

/** The state a hook gets on its stdin. */
export function hookState(state: StateFile, status: Status): OciState {
  const pid = status === "stopped" ? undefined : state.proxy?.pid;
  return {
    ociVersion: OCI_VERSION,
    id: state.id,
    status,
    ...(pid === undefined ? {} : { pid }),
    bundle: state.bundle,
    ...(Object.keys(state.annotations).length === 0 ? {} : { annotations: state.annotations }),
  };
}

export function listedState(state: StateFile, owner: string): ListedState {
  const status = statusOf(state);
  const annotations = { ...state.annotations, ...(status === "stopped" ? endAnnotations(state) : {}) };
  return {
    ociVersion: OCI_VERSION,
    id: state.id,
    pid: status === "stopped" ? 0 : (state.proxy?.pid ?? 0),
    status,
    bundle: state.bundle,
    rootfs: state.rootfs,
    created: state.created,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    owner,
  };
}

function endAnnotations(state: StateFile): Record<string, string> {
  const exit = readExit(state);
  return {
    ...(exit?.oomKilled === true ? { [OOM_ANNOTATION]: "true" } : {}),
    ...(exit?.reason === undefined ? {} : { [REASON_ANNOTATION]: exit.reason }),
  };
}
