// One mount of the plan, inside the root filesystem.
#pragma once
#include "launcher/inside.h"
#include "launcher/plan.h"

namespace tskata::launcher {

void do_mount(const Root& root, const Plan& plan, const Mount& mount);
// Makes what is at `path` read-only, by a bind of itself; not there is no error.
void make_readonly(const Root& root, const std::string& path);
// Hides what is at `path`; not there is no error.
void mask(const Root& root, const std::string& path);

}  // namespace tskata::launcher
