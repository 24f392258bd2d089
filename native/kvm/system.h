// /dev/kvm itself (KVM API §4): its version, what it can do, what CPUs it can show.
#pragma once
#include <linux/kvm.h>

#include <span>
#include <string>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::kvm {

// An ioctl whose failure is a std::system_error naming it: KVM_IOCTL(fd, KVM_CREATE_VM, 0). A signal to the thread is no failure: KVM_CREATE_VM
// among others undoes what it has begun and says EINTR, and is asked again. (KVM_RUN, which signals are to end, is not called by this.)
int call(int fd, unsigned long request, uintptr_t argument, const char* name);
#define KVM_IOCTL(fd, request, argument) ::tskata::kvm::call(fd, request, (uintptr_t)(argument), #request)

class System {
 public:
  explicit System(const std::string& path);

  int api_version() const;
  // KVM_CHECK_EXTENSION: 0 when it is not there.
  int capability(int number) const;
  std::vector<kvm_cpuid_entry2> supported_cpuid() const;
  // Model-specific registers that make up a vCPU's state.
  std::vector<uint32_t> msr_indices() const;
  int fd() const { return fd_.get(); }

 private:
  os::Descriptor fd_;
};

}  // namespace tskata::kvm
