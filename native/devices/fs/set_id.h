// set-user-ID and set-group-ID bits go when somebody without CAP_FSETID in the guest changes a file. The guest's kernel tells us of such a
// caller (FUSE_HANDLE_KILLPRIV_V2); the host's would not remove them, since the server has that capability.
#pragma once
#include <linux/fuse.h>

namespace tskata::devices::fs {

void remove_set_id_bits(int fd, const fuse_in_header& caller);

// For operations whose requests have no flag for it: a caller that is not root is taken for one without the capability.
inline void remove_set_id_bits_unless_root(int fd, const fuse_in_header& caller) {
  if (caller.uid != 0) remove_set_id_bits(fd, caller);
}

}  // namespace tskata::devices::fs
