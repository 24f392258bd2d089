// ioctls of /dev/kvm.
#include "kvm/system.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kvm/flexible.h"

namespace tskata::kvm {

int call(int fd, unsigned long request, uintptr_t argument, const char* name) {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return os::checked(result, name);
}

System::System(const std::string& path) : fd_(os::checked(::open(path.c_str(), O_RDWR | O_CLOEXEC), ("open " + path).c_str())) {}

int System::api_version() const { return KVM_IOCTL(fd_.get(), KVM_GET_API_VERSION, 0); }

int System::capability(int number) const { return KVM_IOCTL(fd_.get(), KVM_CHECK_EXTENSION, number); }

std::vector<kvm_cpuid_entry2> System::supported_cpuid() const {
  constexpr size_t limit = 256;  // KVM_MAX_CPUID_ENTRIES
  std::vector<std::byte> memory(sizeof(EntriesHead) + limit * sizeof(kvm_cpuid_entry2));
  EntriesHead head{limit, 0};
  std::memcpy(memory.data(), &head, sizeof head);
  call(fd_.get(), get_supported_cpuid, reinterpret_cast<uintptr_t>(memory.data()), "KVM_GET_SUPPORTED_CPUID");
  std::memcpy(&head, memory.data(), sizeof head);
  std::vector<kvm_cpuid_entry2> out(std::min<size_t>(head.count, limit));
  std::memcpy(out.data(), memory.data() + sizeof head, out.size() * sizeof out[0]);
  return out;
}

std::vector<uint32_t> System::msr_indices() const {
  constexpr size_t limit = 1024;
  std::vector<uint32_t> memory(1 + limit);  // IndicesHead, then the indices
  memory.front() = limit;
  call(fd_.get(), get_msr_index_list, reinterpret_cast<uintptr_t>(memory.data()), "KVM_GET_MSR_INDEX_LIST");
  return {memory.begin() + 1, memory.begin() + 1 + std::min<uint32_t>(memory.front(), limit)};
}

}  // namespace tskata::kvm
