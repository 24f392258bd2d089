// From the plan's rules to libseccomp's calls, as runc makes them.
#include "launcher/seccomp.h"

#include <seccomp.h>

#include <memory>
#include <vector>

#include "launcher/step.h"

namespace tskata::launcher {

namespace {

// libseccomp gives negative errno values.
void attempt_seccomp(int result, const std::string& step) {
  if (result < 0) throw StepError("seccomp: " + step, -result);
}

void add_architectures(scmp_filter_ctx filter, const Seccomp& profile) {
  for (const uint32_t architecture : profile.architectures) {
    const int result = ::seccomp_arch_add(filter, architecture);
    if (result != -EEXIST) attempt_seccomp(result, "add architecture " + std::to_string(architecture));
  }
}

void add_rule(scmp_filter_ctx filter, const SeccompRule& rule, const std::string& name, std::span<const scmp_arg_cmp> arguments) {
  const int number = ::seccomp_syscall_resolve_name(name.c_str());
  if (number == __NR_SCMP_ERROR) return;  // a call this libseccomp does not know: profiles are written for many kernels
  attempt_seccomp(::seccomp_rule_add_array(filter, rule.action, number, static_cast<unsigned>(arguments.size()), arguments.data()),
                  "add a rule for " + name);
}

// Two conditions on one argument are not one rule to libseccomp: runc makes a rule of each then, which is "or".
bool repeats_an_argument(const SeccompRule& rule) {
  uint32_t seen = 0;
  for (const SeccompArgument& argument : rule.arguments) {
    if ((seen >> argument.index & 1) != 0) return true;
    seen |= 1u << argument.index;
  }
  return false;
}

void add_rules(scmp_filter_ctx filter, const Seccomp& profile, const SeccompRule& rule) {
  if (rule.action == profile.default_action) return;
  std::vector<scmp_arg_cmp> arguments;
  for (const SeccompArgument& argument : rule.arguments) {
    arguments.push_back({argument.index, static_cast<scmp_compare>(argument.op), argument.value, argument.value_two});
  }
  const bool each = repeats_an_argument(rule);
  for (const std::string& name : rule.names) {
    if (!each) add_rule(filter, rule, name, arguments);
    else
      for (const scmp_arg_cmp& argument : arguments) add_rule(filter, rule, name, {&argument, 1});
  }
}

}  // namespace

void load_seccomp(const Seccomp& profile) {
  if (!profile.present) return;
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(profile.default_action), ::seccomp_release);
  if (!filter) throw StepError("seccomp: make a filter", ENOMEM);
  add_architectures(filter.get(), profile);
  // The process has dropped privileges by itself or has none to gain: no_new_privs is the plan's to decide.
  attempt_seccomp(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_NNP, 0), "leave no_new_privs alone");
  if ((profile.flags & 1) != 0) attempt_seccomp(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1), "TSYNC");
  if ((profile.flags & 2) != 0) attempt_seccomp(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_LOG, 1), "LOG");
  if ((profile.flags & 4) != 0) attempt_seccomp(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_SSB, 1), "SPEC_ALLOW");
  for (const SeccompRule& rule : profile.rules) add_rules(filter.get(), profile, rule);
  // A tree of comparisons instead of a list: a profile of hundreds of calls costs every call.
  (void)::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  attempt_seccomp(::seccomp_load(filter.get()), "load the filter");
}

}  // namespace tskata::launcher
