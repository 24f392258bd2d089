// The root folder of a pod's processes: a tmpfs that shows what they need at the places where the host has it, and nothing else.
#pragma once
#include <string>
#include <vector>

namespace tskata::jail {

struct View {
  enum class Kind { read, execute, write, device, link };
  Kind kind;
  std::string path;
  std::string target;  // of a link
};

struct RootOptions {
  std::vector<View> views;  // parents before what is below them
  std::string shared;       // folder within a writable view that becomes a tmpfs: the pod's shared tree
};

// In a mount namespace of one's own: makes the root and moves there; the host's is not reachable afterwards. Throws std::system_error.
void enter_root(const RootOptions& options);

// In the pid namespace it is to show.
void mount_proc();

}  // namespace tskata::jail
