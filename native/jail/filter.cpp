// A list of comparisons, one or a few instructions a rule; the kernel keeps the plain ones in a bitmap, so their order costs nothing.
#include "jail/filter.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "jail/bpf.h"

namespace tskata::jail {

namespace {

using namespace bpf;

constexpr uint32_t number_offset = offsetof(seccomp_data, nr);
constexpr uint32_t architecture_offset = offsetof(seccomp_data, arch);
// From here on x32's calls begin, which x86-64 kernels take under the same architecture.
constexpr uint32_t foreign_numbers = 0x4000'0000;

constexpr uint16_t jump_at_least = BPF_JMP | BPF_JGE | BPF_K;
constexpr uint16_t and_constant = BPF_ALU | BPF_AND | BPF_K;

uint32_t action(Verdict verdict, Mode mode) {
  if (verdict == Verdict::allow) return SECCOMP_RET_ALLOW;
  if (verdict == Verdict::refuse) return SECCOMP_RET_ERRNO | ENOSYS;
  return mode == Mode::log ? SECCOMP_RET_LOG : SECCOMP_RET_TRAP;
}

uint32_t argument_offset(int argument, bool upper) {
  // Both architectures are little-endian.
  return static_cast<uint32_t>(offsetof(seccomp_data, args) + static_cast<size_t>(argument) * sizeof(uint64_t) + (upper ? 4 : 0));
}

class Assembler {
 public:
  explicit Assembler(Mode mode) : mode_(mode) {}

  void begin() {
    add(load_word, architecture_offset);
    add(jump_equal, architecture, 1, 0);
    add(give, SECCOMP_RET_KILL_PROCESS);
    add(load_word, number_offset);
    add(jump_at_least, foreign_numbers, 0, 1);
    add(give, SECCOMP_RET_KILL_PROCESS);
  }

  void rule(const Rule& rule) {
    const bool conditional = rule.condition.argument >= 0;
    // Over the verdict, and with a condition over its two halves of three and the load that restores the number.
    add(jump_equal, rule.number, 0, conditional ? 8 : 1);
    if (!conditional) return add(give, action(rule.verdict, mode_));
    half(rule.condition, false, 4);
    half(rule.condition, true, 1);
    add(give, action(rule.verdict, mode_));
    add(load_word, number_offset);
  }

  Program end(Verdict otherwise) {
    add(give, action(otherwise, mode_));
    return std::move(program_);
  }

 private:
  void add(uint16_t code, uint32_t constant, uint8_t if_true = 0, uint8_t if_false = 0) { program_.push_back({code, if_true, if_false, constant}); }

  void half(const Condition& condition, bool upper, uint8_t otherwise) {
    const int shift = upper ? 32 : 0;
    add(load_word, argument_offset(condition.argument, upper));
    add(and_constant, static_cast<uint32_t>(condition.mask >> shift));
    add(jump_equal, static_cast<uint32_t>(condition.value >> shift), 0, otherwise);
  }

  Mode mode_;
  Program program_;
};

}  // namespace

Program assemble(const Policy& policy, Mode mode) {
  Assembler assembler(mode);
  assembler.begin();
  for (const Rule& rule : policy.rules) assembler.rule(rule);
  for (const Rule& rule : policy.common) assembler.rule(rule);
  return assembler.end(policy.otherwise);
}

int load(const Program& program) {
  const sock_fprog form{static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &form) == 0 ? 0 : errno;
}

}  // namespace tskata::jail
