// Runs the launcher executable with a plan and talks with it (see native/launcher/report.h).
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::os {

struct LaunchFailure {
  std::string step;
  int error;  // 0: the step is the whole message
};

// A process that waits before its execve, or is past it.
struct Launched {
  int pid = -1;
  Descriptor terminal;  // master, when the plan asked for one
  std::shared_ptr<Descriptor> socket;
};

// Blocks until the process is ready or has failed; one that `goes` does not wait then, and this blocks until its execve has happened.
// `stdio` stay the caller's; -1 is /dev/null.
Launched launch(const std::string& launcher, std::span<const std::byte> plan, const std::array<int, 3>& stdio, bool goes);

// Lets it go; blocks until its execve has happened or failed.
void release(Launched& process);

}  // namespace tskata::os
