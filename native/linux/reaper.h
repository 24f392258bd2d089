// Reaps children for PID 1: every process whose parent has gone becomes its child.
#pragma once
#include <functional>

namespace tskata::os {

// Starts the reaper's thread, for the life of the process. `on_exit` runs on that thread: pid and wait status.
void start_reaper(std::function<void(int pid, int status)> on_exit);
// A child has been made: waits again when it had none.
void wake_reaper();

}  // namespace tskata::os
