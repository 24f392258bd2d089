// Words of the kernel's filter programs (seccomp(2), classic BPF). No C++ runtime: the proxy's list is made of them, too.
#pragma once
#include <linux/audit.h>
#include <linux/filter.h>

#include <cstdint>

namespace tskata::jail::bpf {

#if defined(__x86_64__)
constexpr uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t architecture = AUDIT_ARCH_AARCH64;
#else
#error "no list of system calls for this architecture"
#endif

constexpr uint16_t load_word = BPF_LD | BPF_W | BPF_ABS;
constexpr uint16_t jump_equal = BPF_JMP | BPF_JEQ | BPF_K;
constexpr uint16_t give = BPF_RET | BPF_K;

}  // namespace tskata::jail::bpf
