// One virtual CPU: its state, and the thread that runs it and answers its exits (KVM API §5).
#pragma once
#include <linux/kvm.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kvm/bus.h"
#include "linux/descriptor.h"

namespace tskata::kvm {

// Why a machine has stopped for good.
struct Ending {
  // "reset" (the guest asked for it), "shutdown" (triple fault), "halt" (without an irqchip), "internal-error", "entry-failure",
  // "system-event", "unknown-exit", "error" (KVM_RUN itself failed).
  std::string kind;
  unsigned vcpu = 0;
  uint64_t detail = 0;       // suberror, hardware reason, event type, exit reason or errno
  uint64_t instruction = 0;  // where the vCPU was; 0 when it is not known
};

class Vcpu {
 public:
  // `ended` is called once at most, from the vCPU's thread.
  Vcpu(int vm, unsigned id, size_t run_bytes, const Bus& ports, const Bus& memory, std::function<void(Ending)> ended);
  ~Vcpu();

  // Parts of the state by name: "regs", "sregs", "fpu", "xsave", "xcrs", "lapic", "events", "debugregs", "mp_state". The bytes are the
  // kernel's structures. Only while the vCPU is not running.
  std::vector<std::byte> state(std::string_view part) const;
  void set_state(std::string_view part, std::span<const std::byte> bytes);
  void set_cpuid(std::span<const kvm_cpuid_entry2> entries);
  // How many of the list were read or set; the one after them was refused.
  size_t msrs(std::span<kvm_msr_entry> entries) const;
  size_t set_msrs(std::span<const kvm_msr_entry> entries);
  // No breakpoints or single steps of ours: what the guest sets in its debug registers is its own.
  void clear_guest_debug();

  void start();  // the thread runs from now on
  void pause();  // returns when the thread has left the guest with its last exit completed
  void resume();
  void stop();  // ends the thread; idempotent

  // Exits by what caused them: "io 0x3f8", "mmio 0xd0000000", "interrupted".
  std::map<std::string, uint64_t> exits() const;
  // KVM's own statistics of this vCPU (KVM_GET_STATS_FD), name to value; empty where the kernel has none.
  std::map<std::string, uint64_t> statistics() const;

 private:
  enum class Wish { run, pause, stop };
  void run();
  bool enter();  // false: the machine has ended
  bool handle_exit();
  void answer_port();
  void answer_memory();
  bool wait_for_wish();
  void kick();
  void count(const char* kind, uint64_t address);
  bool end(const char* kind, uint64_t detail);

  unsigned id_;
  os::Descriptor fd_;
  size_t run_bytes_;
  kvm_run* run_;  // shared with the kernel
  const Bus& ports_;
  const Bus& memory_;
  std::function<void(Ending)> ended_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Wish wish_ = Wish::run;
  bool parked_ = false;
  bool over_ = false;
  std::map<std::pair<const char*, uint64_t>, uint64_t> exits_;
};

}  // namespace tskata::kvm
