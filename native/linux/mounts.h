// The mount API across mount namespaces: a tree is taken here and put into a pod's namespace.
#pragma once
#include <cstdint>
#include <string>

#include "linux/descriptor.h"

namespace tskata::os {

struct TreeAttributes {
  bool readonly = false;
  bool nodev = false;
  bool nosuid = false;
  bool recursive = false;
  uint64_t propagation = 0;  // MS_PRIVATE, MS_SLAVE; 0: as it is
};

Descriptor open_tree(const std::string& path, bool recursive);
void set_tree_attributes(int tree, const TreeAttributes& attributes);

// Where a tree goes: `target` is relative to `root` and resolved below it with no symlink followed, parents made as needed.
struct Place {
  std::string root;
  std::string target;
  bool directory = true;
  bool if_empty = false;  // not where something is mounted already
};

// Both run on a thread of their own that joins the mount namespace of `pid`.
void place_tree(int tree, int pid, const Place& place);
void remove_tree(int pid, const std::string& root, const std::string& target);

}  // namespace tskata::os
