// A virtual machine: its memory slots, interrupt lines, buses and vCPUs, and the order in which they go away.
#pragma once
#include <memory>
#include <vector>

#include "kvm/bus.h"
#include "kvm/memory.h"
#include "kvm/starter.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"

namespace tskata::kvm {

class Machine {
 public:
  // `ended` is called once, from a vCPU's thread, when the machine can't or won't go on; all vCPUs are leaving the guest then.
  Machine(const System& system, std::function<void(Ending)> ended);
  ~Machine();

  // -- before it runs --------------------------------------------------------------------------------------------------
  void add_memory(uint64_t guest_address, size_t bytes);
  // Shows a file read-only from its start: what several machines map they share. Devices may read it like memory.
  void add_file(uint64_t guest_address, int fd, size_t bytes);
  void create_irqchip();
  unsigned create_vcpu();
  Bus& ports() { return ports_; }
  Bus& mmio() { return mmio_; }  // refuses ranges once the machine runs, as do the above
  // A write to the descriptor raises the line.
  void add_irqfd(int fd, uint32_t line);
  // A write of a descriptor's index (4 bytes) to the address is a write to that descriptor, without an exit to us. All of them, or, when
  // one is refused, none.
  void add_ioeventfds(std::span<const int> fds, uint64_t address);

  // -- memory ------------------------------------------------------------------------------------------------------------
  // Complete once the first device has asked for it.
  std::shared_ptr<const virtio::GuestMemory> memory();
  std::span<std::byte> slice(uint64_t guest_address, uint64_t bytes) const;
  // Pages written since the last call, one bit each, of the slot that begins at the address; the first call starts the log.
  std::vector<uint64_t> dirty_log(uint64_t guest_address);

  // -- while it runs -----------------------------------------------------------------------------------------------------
  Starter& starter() { return starter_; }
  Vcpu& vcpu(unsigned id);
  size_t vcpu_count() const { return vcpus_.size(); }
  void require_not_started() const;  // throws std::logic_error
  void start();                      // once
  void pause();
  void resume();
  void stop();              // every vCPU thread has ended; idempotent
  void end(Ending reason);  // what a device calls that ends the machine (a reset port)

  // Parts by name: "clock" (kvm_clock_data), "pic-master", "pic-slave", "ioapic" (kvm_irqchip).
  std::vector<std::byte> state(std::string_view part) const;
  void set_state(std::string_view part, std::span<const std::byte> bytes);

 private:
  std::vector<virtio::MemoryRegion> regions() const;
  void add_slot(Mapping mapping, uint64_t guest_address, uint32_t flags);
  void set_ioeventfd(int fd, uint64_t address, uint32_t value, uint32_t flags);

  os::Descriptor fd_;
  size_t run_bytes_;
  std::function<void(Ending)> ended_;
  std::mutex end_mutex_;
  bool over_ = false;
  bool started_ = false;
  Bus ports_;
  Bus mmio_;
  std::shared_ptr<MachineMemory> memory_ = std::make_shared<MachineMemory>();
  std::vector<kvm_userspace_memory_region> slots_;
  Starter starter_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;  // last: their threads use all of the above
};

}  // namespace tskata::kvm
