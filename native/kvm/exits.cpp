// Exit record to bus accesses.
#include "kvm/exits.h"

#include <linux/kvm.h>

#include <array>
#include <cstdio>
#include <stdexcept>
#include <system_error>

namespace tskata::kvm {

void ExitCounters::add(Kind kind, uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find({kind, address});
  if (found != counts_.end()) ++found->second;
  else if (counts_.size() < max_causes) counts_.emplace(std::pair{kind, address}, 1);
  else ++elsewhere_[kind];
}

std::map<std::string, uint64_t> ExitCounters::by_cause() const {
  const auto name = [](Kind kind) { return kind == Kind::port ? "io" : kind == Kind::memory ? "mmio" : "interrupted"; };
  const std::lock_guard lock(mutex_);
  std::map<std::string, uint64_t> out;
  for (const auto& [cause, times] : counts_) {
    std::array<char, 32> address{};
    if (cause.first != Kind::interrupted) std::snprintf(address.data(), address.size(), " 0x%llx", static_cast<unsigned long long>(cause.second));
    out[name(cause.first) + std::string(address.data())] = times;
  }
  for (const auto& [kind, times] : elsewhere_) out[std::string(name(kind)) + (kind == Kind::interrupted ? "" : " elsewhere")] += times;
  return out;
}

std::optional<Ending> Exits::handle(std::span<std::byte> record) {
  try {
    return dispatch(record);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kvm: a guest's access could not be answered: %s\n", error.what());
    const auto* const system = dynamic_cast<const std::system_error*>(&error);
    return Ending{"host-error", 0, system == nullptr ? 0 : static_cast<uint64_t>(system->code().value()), 0};
  }
}

std::optional<Ending> Exits::dispatch(std::span<std::byte> record) {
  if (record.size() < sizeof(kvm_run)) throw std::length_error("exit record is too short");
  kvm_run& run = *reinterpret_cast<kvm_run*>(record.data());
  switch (run.exit_reason) {
    case KVM_EXIT_IO: answer_port(run, record); return std::nullopt;
    case KVM_EXIT_MMIO: answer_memory(run); return std::nullopt;
    case KVM_EXIT_INTR: return std::nullopt;
    case KVM_EXIT_HLT: return Ending{"halt"};
    case KVM_EXIT_SHUTDOWN: return Ending{"shutdown"};
    case KVM_EXIT_INTERNAL_ERROR: return Ending{"internal-error", 0, run.internal.suberror};
    case KVM_EXIT_FAIL_ENTRY: return Ending{"entry-failure", 0, run.fail_entry.hardware_entry_failure_reason};
    case KVM_EXIT_SYSTEM_EVENT: return Ending{"system-event", 0, run.system_event.type};
    default: return Ending{"unknown-exit", 0, run.exit_reason};
  }
}

// A string instruction gives several elements at once, all for the same port.
void Exits::answer_port(kvm_run& run, std::span<std::byte> record) {
  const auto io = run.io;
  counters_.add(ExitCounters::Kind::port, io.port);
  const bool known_size = io.size == 1 || io.size == 2 || io.size == 4;
  const uint64_t bytes = uint64_t{io.size} * io.count;
  if (!known_size || io.data_offset > record.size() || bytes > record.size() - io.data_offset)
    throw std::length_error("port access of a broken size");
  std::span<std::byte> rest = record.subspan(io.data_offset, bytes);
  for (; !rest.empty(); rest = rest.subspan(io.size)) {
    if (io.direction == KVM_EXIT_IO_IN) ports_.read(io.port, rest.first(io.size));
    else ports_.write(io.port, rest.first(io.size));
  }
}

void Exits::answer_memory(kvm_run& run) {
  auto& mmio = run.mmio;
  counters_.add(ExitCounters::Kind::memory, mmio.phys_addr & ~uint64_t{0xfff});
  if (mmio.len == 0 || mmio.len > sizeof mmio.data) throw std::length_error("memory access of a broken size");
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(mmio.data), mmio.len);
  if (mmio.is_write != 0) memory_.write(mmio.phys_addr, data);
  else memory_.read(mmio.phys_addr, data);
}

}  // namespace tskata::kvm
