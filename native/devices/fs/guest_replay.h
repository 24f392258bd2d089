// In the guest: does in the guest's shared tree what the host has done to it (replays.h), so that the kernel raises the events of it. None of the
// calls opens a file but for the end of writing, which has no event of its own without.
#pragma once
#include <vector>

#include "devices/fs/host_watch.h"

namespace tskata::devices::fs {

// `root` is an open folder of the shared tree. How many changes could not be done: the guest knows their folder no more.
unsigned replay(int root, const std::vector<Change>& changes);

}  // namespace tskata::devices::fs
