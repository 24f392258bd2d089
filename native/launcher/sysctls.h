// linux.sysctl, each where the process that writes it has the right to.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

// The network namespace is the pod's and not of the container's user namespace, whose root may not write them: before that is made.
void write_network_sysctls(const Plan& plan);
// Of the container's own namespaces: from inside, by its own /proc.
void write_own_sysctls(const Plan& plan);

}  // namespace tskata::launcher
