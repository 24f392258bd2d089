// What KVM_RUN comes back with (KVM API §5): accesses go to the buses, everything else is the machine's end. Knows no file of KVM's, so
// that it can be fed with anything.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "kvm/bus.h"

struct kvm_run;

namespace tskata::kvm {

// Why a machine has stopped for good.
struct Ending {
  // "reset" (the guest asked for it), "shutdown" (triple fault), "halt" (without an irqchip), "internal-error", "entry-failure",
  // "system-event", "unknown-exit", "error" (KVM_RUN itself failed), "host-error" (an access could not be answered).
  std::string kind;
  unsigned vcpu = 0;
  uint64_t detail = 0;       // suberror, hardware reason, event type, exit reason or errno
  uint64_t instruction = 0;  // where the vCPU was; 0 when it is not known
};

// Exits by what caused them. Which ports and pages there are is the guest's choice, so only so many are told apart.
class ExitCounters {
 public:
  static constexpr size_t max_causes = 512;
  enum class Kind { port, memory, interrupted };

  void add(Kind kind, uint64_t address = 0);
  // "io 0x3f8", "mmio 0xd0000000", "io elsewhere", "mmio elsewhere", "interrupted".
  std::map<std::string, uint64_t> by_cause() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<Kind, uint64_t>, uint64_t> counts_;
  std::map<Kind, uint64_t> elsewhere_;
};

class Exits {
 public:
  Exits(const Bus& ports, const Bus& memory) : ports_(ports), memory_(memory) {}

  // `record` is what the vCPU shares with KVM, kvm_run and the data behind it; answers are put there. Nothing when the vCPU goes on.
  //
  // Never throws: what an access throws here is no fault of the guest's, and ends the machine by name rather than this process.
  std::optional<Ending> handle(std::span<std::byte> record);
  ExitCounters& counters() { return counters_; }
  const ExitCounters& counters() const { return counters_; }

 private:
  std::optional<Ending> dispatch(std::span<std::byte> record);
  void answer_port(kvm_run& run, std::span<std::byte> record);
  void answer_memory(kvm_run& run);

  const Bus& ports_;
  const Bus& memory_;
  ExitCounters counters_;
};

}  // namespace tskata::kvm
