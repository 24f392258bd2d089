// tskata-launcher: from a plan (descriptor 3) to execve. One thread, two processes:
//
//   the first    sets the OOM score, joins the cgroup and namespaces, writes the network's sysctls, makes the second in new ones, writes its
//                id maps, tells its pid, ends
//   the second   is the container's process: root filesystem, privileges, execve; its parent is now the agent, which reaps it
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/namespaces.h"
#include "launcher/plan.h"
#include "launcher/process.h"
#include "launcher/report.h"
#include "launcher/rootfs.h"
#include "launcher/sysctls.h"

namespace {

using namespace tskata::launcher;

Plan read_plan() {
  struct stat facts {};
  attempt(::fstat(plan_fd, &facts), "read the launch plan");
  const size_t size = static_cast<size_t>(facts.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, plan_fd, 0);
  if (memory == MAP_FAILED) throw StepError("read the launch plan", errno);
  Plan plan = parse_plan({static_cast<const std::byte*>(memory), size});
  ::munmap(memory, size);
  ::close(plan_fd);
  return plan;
}

void be_the_process(const Plan& plan, int mapped) {
  wait_for_maps(mapped);
  if (plan.has(flag_container)) enter_rootfs(plan);
  become(plan);  // returns only by throwing
}

void launch() {
  const Plan plan = read_plan();
  set_oom_score(plan);
  join_cgroup(plan);
  join_namespaces(plan);
  write_network_sysctls(plan);
  make_process(plan, [&plan](int mapped) { be_the_process(plan, mapped); });
}

}  // namespace

int main() {
  try {
    attempt(::fcntl(report_fd, F_SETFD, FD_CLOEXEC), "close-on-exec of the report socket");
    attempt(::fcntl(plan_fd, F_SETFD, FD_CLOEXEC), "close-on-exec of the plan");
    ::syscall(SYS_close_range, 5u, ~0u, 0);
    launch();
    return 0;
  } catch (const StepError& error) {
    report_failure(error);
  } catch (const std::exception& error) {
    report_failure(StepError(error.what(), ENOMEM));
  }
  return 125;
}
