// The last part of a launch: what the process may do, and execve.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

// Gives up privileges, tells the agent that it is ready, waits, and becomes the program. Returns only by throwing.
void become(const Plan& plan);

}  // namespace tskata::launcher
