// The OCI seccomp profile as a kernel filter, by libseccomp.
#pragma once
#include "launcher/plan.h"

namespace tskata::launcher {

void load_seccomp(const Seccomp& profile);

}  // namespace tskata::launcher
