// One virtual CPU: its state, and the thread that runs it and answers its exits (KVM API §5).
#pragma once
#include <linux/kvm.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kvm/exits.h"
#include "linux/descriptor.h"

namespace tskata::kvm {

// A part of a vCPU's state: its size, and the requests that get and set it.
struct StatePart {
  std::string_view name;
  size_t bytes;
  unsigned long get;
  unsigned long set;
  const char* get_name;
  const char* set_name;
};

// Its state is there while the vCPU is not running; asked for earlier it is refused, since KVM would keep the caller waiting for as long
// as the guest likes.
class Vcpu {
 public:
  // `ended` is called once at most, from the vCPU's thread.
  Vcpu(int vm, unsigned id, size_t run_bytes, const Bus& ports, const Bus& memory, std::function<void(Ending)> ended);
  ~Vcpu();

  // Parts of the state by name: "regs", "sregs", "fpu", "xsave", "xcrs", "lapic", "events", "debugregs", "mp_state". The bytes are the
  // kernel's structures; "xsave" is as large as the guest's XSAVE area needs, 4096 at least.
  std::vector<std::byte> state(std::string_view part) const;
  void set_state(std::string_view part, std::span<const std::byte> bytes);
  void set_cpuid(std::span<const kvm_cpuid_entry2> entries);
  // How many of the list were read or set; the one after them was refused.
  size_t msrs(std::span<kvm_msr_entry> entries) const;
  size_t set_msrs(std::span<const kvm_msr_entry> entries);
  // No breakpoints or single steps of ours: what the guest sets in its debug registers is its own.
  void clear_guest_debug();

  void start();  // the thread runs from now on
  void request_pause();
  void pause();  // returns when the thread has left the guest with its last exit completed, or has ended
  void resume();
  void request_stop();  // from any thread, that of the vCPU too
  void stop();          // ends the thread; idempotent

  std::map<std::string, uint64_t> exits() const { return exits_.counters().by_cause(); }
  // KVM's own statistics of this vCPU (KVM_GET_STATS_FD), name to value; empty where the kernel has none.
  std::map<std::string, uint64_t> statistics() const;

 private:
  enum class Wish { run, pause, stop };
  void run();
  bool enter();  // false: the thread is to end
  bool wait_for_wish();
  bool end(Ending why);
  void kick();
  void require_still() const;
  StatePart part(std::string_view name) const;

  unsigned id_;
  os::Descriptor fd_;
  size_t run_bytes_;
  kvm_run* run_;  // shared with the kernel
  os::Descriptor statistics_;
  size_t xsave_bytes_;  // of KVM_GET_XSAVE2; 0 where the kernel has only the request of a fixed size
  Exits exits_;
  std::function<void(Ending)> ended_;
  std::thread thread_;  // its owner's: other threads know it by self_

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Wish wish_ = Wish::run;
  bool parked_ = false;
  bool over_ = false;
  std::optional<pthread_t> self_;  // while the thread may be kicked
};

}  // namespace tskata::kvm
