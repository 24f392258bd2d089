// The process's terminal: opened in the container's devpts, its master sent to the agent.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

// The slave becomes 0, 1 and 2 and the controlling terminal; for a container's init it is /dev/console as well.
void open_terminal(const Plan& plan);

}  // namespace tskata::launcher
