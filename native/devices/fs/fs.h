// virtio-fs (virtio 1.2 §5.11): the FUSE server on virtqueues.
#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <latch>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "devices/fs/server.h"
#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::fs {

struct FsOptions {
  std::string root;
  std::string tag;
  unsigned threads = 4;
  os::Descriptor keeper{};  // see inode_table.h
  size_t descriptor_budget = InodeTable::default_budget;
  std::chrono::microseconds patience{};  // virtio::QueueReader
  bool writeback = false;                // server.h
  double share = 1;                      // of what a process's file servers may hold: inode_table.h
};

class FsDevice final : public virtio::Device {
 public:
  explicit FsDevice(FsOptions options);
  ~FsDevice() override;

  uint32_t device_id() const override { return 26; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return 2; }  // hiprio, one request queue
  uint16_t max_queue_size() const override { return 1024; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override;

  // server.h
  void next_changes(size_t most, HostWatch::Report report) { server_.next_changes(most, std::move(report)); }

 private:
  // A started queue and how many of its threads serve it. Unlike virtio::QueueWorkers' these outlive it: they are made with the device,
  // because they keep rights which the thread that starts a queue no longer has (jail/jail.h).
  struct Service {
    Service(virtio::ActiveQueue queue, std::chrono::microseconds patience) : reader(std::move(queue), patience) {}
    virtio::QueueReader reader;
    uint64_t number = 0;   // counts the starts of all queues
    unsigned workers = 0;  // inside `work`
    bool broken = false;
  };

  size_t thread_count(size_t index) const { return index == 0 ? 1 : options_.threads; }
  void run_worker(size_t index);
  Service* next_service(size_t index, uint64_t last);
  void work(Service& service);
  void leave(Service& service, const char* fault);

  FsOptions options_;
  Server server_;
  std::mutex mutex_;  // what follows, and a service's numbers
  std::condition_variable changed_;
  std::array<std::unique_ptr<Service>, 2> services_;
  uint64_t last_number_ = 0;
  bool ending_ = false;
  std::latch registered_;
  std::vector<std::thread> threads_;
};

}  // namespace tskata::devices::fs
