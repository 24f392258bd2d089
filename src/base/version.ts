/** Versions: of tskata, and of the runtime-spec it follows. */

export const TSKATA_VERSION = "0.1.0";
/** The newest runtime-spec whose fields src/oci/spec.ts knows; also what `state` prints. */
export const OCI_VERSION = "1.2.0";

/** The text of --version; callers look for the name and for "spec:". */
export function version(): string {
  return `${TSKATA_VERSION}\nspec: ${OCI_VERSION}\nnode: ${process.versions.node}`;
}
