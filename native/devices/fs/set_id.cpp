// What the host's kernel does for a caller without CAP_FSETID.
#include "devices/fs/set_id.h"

#include <sys/stat.h>

namespace tskata::devices::fs {

void remove_set_id_bits(int fd, const fuse_in_header& caller) {
  struct stat now {};
  if (::fstat(fd, &now) != 0 || !S_ISREG(now.st_mode) || (now.st_mode & (S_ISUID | S_ISGID)) == 0) return;
  mode_t mode = now.st_mode & 07777 & ~static_cast<mode_t>(S_ISUID);
  // Without the group's x it is left to members of the group.
  if ((mode & S_IXGRP) != 0 || caller.gid != now.st_gid) mode &= ~static_cast<mode_t>(S_ISGID);
  if (mode != (now.st_mode & 07777)) (void)::fchmod(fd, mode);
}

}  // namespace tskata::devices::fs
