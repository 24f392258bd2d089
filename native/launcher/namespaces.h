// Cgroup and namespaces: joined by the first process, made for the second.
#pragma once
#include <functional>

#include "launcher/plan.h"

namespace tskata::launcher {

// Where the process may still write to its own /proc: in a user namespace it is not its owner's.
void set_oom_score(const Plan& plan);
void join_cgroup(const Plan& plan);
void join_namespaces(const Plan& plan);

// Makes the second process in the plan's new namespaces and runs `body` there; tells the agent its pid. `body` gets a descriptor whose
// end says that the id maps are written (-1 when there are none).
void make_process(const Plan& plan, const std::function<void(int mapped)>& body);
void wait_for_maps(int mapped);

}  // namespace tskata::launcher
