// virtio over memory-mapped registers, version 2 (virtio 1.2 §4.2): attaches a device backend to a machine in this process.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::transport {

// One slot of the machine. Without a device it is a placeholder (device id 0, which drivers pass over, §4.2.3.1.1) that may be given one
// later. Accesses come from vCPU threads, several at a time; interrupts from device threads.
//
// Nothing that a device throws reaches the vCPU: a guest whose rings are nowhere, or a host out of threads or descriptors, is a device
// that needs a reset (§2.1.2), told the driver by the status and the log by a line.
class VirtioMmio {
 public:
  static constexpr uint64_t size = 0x1000;            // bytes of address space: registers, then configuration space
  static constexpr uint64_t notify_register = 0x050;  // a write of a queue's index is what ioeventfds listen for

  // Runs what starts a device's queues to its end, and throws what that throws.
  using Run = std::function<void(const std::function<void()>& work)>;

  // `raise` signals the slot's interrupt line; callable from any thread. Queues start on the thread that says DRIVER_OK unless `start` takes
  // that elsewhere.
  VirtioMmio(
      std::shared_ptr<const virtio::GuestMemory> memory, std::function<void()> raise, Run start = [](const auto& work) { work(); });
  ~VirtioMmio();  // the vCPUs have stopped; stops the device's queues

  // Is given the notifiers of a device's queues before its driver can see it.
  using Listen = std::function<void(std::span<const int> notifiers)>;
  // Gives the placeholder its identity, once. When `listen` throws, or there are no descriptors left, it stays a placeholder.
  void attach(std::shared_ptr<virtio::Device> device, const Listen& listen = {});
  // Becomes readable when the driver notifies queue `index`, one for each queue of the device. Stays the slot's.
  std::vector<int> notifiers() const;

  void read(uint64_t offset, std::span<std::byte> out);
  void write(uint64_t offset, std::span<const std::byte> in);

 private:
  struct Ring {
    virtio::QueueLayout layout;
    bool ready = false;
    bool running = false;
    os::Descriptor kick;
    std::shared_ptr<virtio::Queue> queue;
  };

  // What device threads touch: apart from the registers, because a reset waits for them while it holds those.
  struct Interrupts {
    std::mutex mutex;
    std::function<void()> raise;
    uint32_t status = 0;
    uint32_t generation = 0;
    bool live = false;  // the driver has said DRIVER_OK: its handler is in place

    void signal(uint32_t cause);
    void go_live();
    void clear();
  };

  static std::vector<int> notifiers_of(const std::vector<Ring>& rings);
  uint32_t read_register(uint64_t offset);
  uint32_t device_features() const;
  void write_register(uint64_t offset, uint32_t value);
  void write_queue_register(uint64_t offset, uint32_t value);
  void write_queue_ready(size_t index, bool ready);
  void write_status(uint32_t value);
  void notify(uint32_t index);
  bool accept_features();
  void start_rings();
  void start_ring(size_t index);
  void stop_ring(size_t index);
  void stop_rings();
  void reset();
  template <typename Call>
  bool attempt(const char* what, Call&& call);
  Ring* selected();

  std::shared_ptr<const virtio::GuestMemory> memory_;
  std::shared_ptr<Interrupts> interrupts_ = std::make_shared<Interrupts>();
  Run start_;
  mutable std::mutex mutex_;
  std::shared_ptr<virtio::Device> device_;
  std::vector<Ring> rings_;
  uint32_t status_ = 0;
  uint32_t device_features_select_ = 0;
  uint32_t driver_features_select_ = 0;
  uint64_t driver_features_ = 0;
  uint32_t queue_select_ = 0;
};

}  // namespace tskata::transport
