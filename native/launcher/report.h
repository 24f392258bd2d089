// The launcher's socket to the agent (seqpacket, descriptor 4).
//
//   launcher → agent   'P' pid:u32           the process, numbered as the agent sees it
//                      'T' + descriptor      the master of the process's terminal
//                      'R'                   everything is set up; the process waits
//                      'E' errno:i32 step    a step failed; the process ends
//   agent → launcher   'G'                   go on to the execve; success is the end of the stream
#pragma once
#include <string>

#include "launcher/step.h"

namespace tskata::launcher {

constexpr int plan_fd = 3;
constexpr int report_fd = 4;

void report_pid(int pid);
void report_terminal(int master);
void report_ready();
void report_failure(const StepError& error);

// False when the agent has gone instead.
bool wait_for_go();

}  // namespace tskata::launcher
