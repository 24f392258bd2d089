// Names that have one inode number and are not one file: hard links in a lower layer of overlayfs. The first change copies up the name that it
// goes by, the others stay as they were (Documentation/filesystems/overlayfs.rst, "Non-standard behavior"); so the kernel has an inode for each.
#pragma once
#include <fcntl.h>
#include <sys/stat.h>

#include "linux/proc_path.h"

namespace tskata::devices::fs {

// Hard links that were made in the upper layer are one file, and nothing of their attributes tells.
inline bool may_be_twins(bool overlay, const struct statx& attributes) { return overlay && S_ISREG(attributes.stx_mode) && attributes.stx_nlink > 1; }

class Twins {
 public:
  Twins();

  // Whether the kernel has one inode for two descriptors of files (O_PATH will do): a lock that is taken by one is then in the other's way. Taken for
  // one where that can't be found out.
  bool is_one_inode(int one, int other) const;

 private:
  const os::OwnDescriptors own_;
  const off_t byte_;  // far behind any data, and no other process's
};

}  // namespace tskata::devices::fs
