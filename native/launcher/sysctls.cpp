// The names are checked already: none has "..", and each is of a namespace (src/oci/sysctl.ts).
#include "launcher/sysctls.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "launcher/step.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

bool of_the_network(const std::string& path) { return path.starts_with("net/"); }

void write_sysctl(const std::string& path, const std::string& value) {
  const std::string step = "set the sysctl " + path;
  const os::Descriptor file(attempt(::open(("/proc/sys/" + path).c_str(), O_WRONLY | O_CLOEXEC), step));
  if (::write(file.get(), value.data(), value.size()) < 0) throw StepError(step, errno);
}

}  // namespace

void write_network_sysctls(const Plan& plan) {
  for (const auto& [path, value] : plan.sysctls) {
    if (of_the_network(path)) write_sysctl(path, value);
  }
}

void write_own_sysctls(const Plan& plan) {
  for (const auto& [path, value] : plan.sysctls) {
    if (!of_the_network(path)) write_sysctl(path, value);
  }
}

}  // namespace tskata::launcher
