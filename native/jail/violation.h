// Which system call was one too many: told on standard error by the thread that made it, which then dies of SIGSYS.
#pragma once

namespace tskata::jail {

void tell_violations();

}  // namespace tskata::jail
