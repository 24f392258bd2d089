// From a list of system calls to the kernel's filter program (seccomp(2), classic BPF).
#pragma once
#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <vector>

namespace tskata::jail {

// A condition on one argument: (argument & mask) == value.
struct Condition {
  int argument = -1;  // none: the call alone decides
  uint64_t mask = ~uint64_t{0};
  uint64_t value = 0;
};

enum class Verdict : uint8_t { allow, refuse, violate };

// The first rule that fits decides. `refuse`: the call fails with ENOSYS, for calls whose callers then take another that can be checked.
struct Rule {
  uint32_t number;
  Condition condition{};
  Verdict verdict = Verdict::allow;
};

struct Policy {
  std::span<const Rule> rules;
  std::span<const Rule> common;  // after `rules`
  Verdict otherwise = Verdict::violate;
};

enum class Mode : uint8_t { enforce, log, off };

using Program = std::vector<sock_filter>;

// What a violation does: `enforce` raises SIGSYS, whose handler tells of the call and dies (see violation.h); without a handler, and
// after an execve, SIGSYS kills at once. `log` writes an audit record and lets the call pass. A call of another architecture's
// table always kills.
Program assemble(const Policy& policy, Mode mode);

// Loads it for the calling thread, which must have no_new_privs: 0 or an errno. A system call only: a signal handler may do it.
int load(const Program& program);

}  // namespace tskata::jail
