// startContainer hooks: in the container, just before its program.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

void run_start_hooks(const Plan& plan);

}  // namespace tskata::launcher
