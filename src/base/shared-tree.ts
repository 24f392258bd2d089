/** The tree that host and guest share: where the guest has it, and its folders, each a file server's (src/oci/guest-spec.ts). */
export const GUEST_SHARED = "/run/tskata/shared";
export const LIVE = "live";
export const CACHED = "cached";
