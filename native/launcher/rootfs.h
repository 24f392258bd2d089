// The container's root filesystem: mounts, devices, terminal, then the way into it.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

void enter_rootfs(const Plan& plan);

}  // namespace tskata::launcher
