// Requests of <linux/kvm.h> whose structures end in a flexible array. Its macro for those makes them larger in C++ than in C, and the size
// is part of the request's number, so the heads and the numbers are declared here.
#pragma once
#include <linux/kvm.h>

#include <cstdint>

namespace tskata::kvm {

// kvm_cpuid2 and kvm_msrs without their entries.
struct EntriesHead {
  uint32_t count;
  uint32_t padding;
};

// kvm_msr_list without its indices.
struct IndicesHead {
  uint32_t count;
};

// kvm_stats_desc without its name.
struct StatisticHead {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucket_size;
};

// kvm_xsave. Where there is KVM_CAP_XSAVE2 its flexible array holds what a guest's XSAVE area has beyond this (AMX).
struct Xsave {
  uint32_t region[1024];
};

constexpr unsigned long get_supported_cpuid = _IOWR(KVMIO, 0x05, EntriesHead);
constexpr unsigned long set_cpuid = _IOW(KVMIO, 0x90, EntriesHead);
constexpr unsigned long get_msr_index_list = _IOWR(KVMIO, 0x02, IndicesHead);
constexpr unsigned long get_msrs = _IOWR(KVMIO, 0x88, EntriesHead);
constexpr unsigned long set_msrs = _IOW(KVMIO, 0x89, EntriesHead);

constexpr unsigned long get_xsave = _IOR(KVMIO, 0xa4, Xsave);
constexpr unsigned long set_xsave = _IOW(KVMIO, 0xa5, Xsave);
constexpr unsigned long get_xsave2 = _IOR(KVMIO, 0xcf, Xsave);

}  // namespace tskata::kvm
