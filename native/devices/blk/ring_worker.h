// Serves a disk's queue through a ring: one thread, and as many requests at a time as the ring takes.
#pragma once
#include <functional>
#include <vector>

#include "devices/blk/disk.h"
#include "devices/blk/request.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::blk {

class RingWorker {
 public:
  // Reads a request: its status if nothing fails, and what is to be done for it.
  using Begin = std::function<Status(const virtio::Chain& chain, Work& work)>;
  // Writes the status; returns the bytes written to the buffer.
  using Finish = std::function<size_t(const virtio::Chain& chain, Status status)>;

  RingWorker(os::IoRing& ring, const Disk& disk, Begin begin, Finish finish);

  // Until the queue is stopped. What has begun is finished first, whatever ends it: the kernel knows the guest's memory until then.
  void run(virtio::QueueReader& reader);

 private:
  struct Job {
    virtio::Chain chain;
    Work work;
    Status status = Status::ok;
  };

  void serve(virtio::QueueReader& reader);
  bool start(virtio::QueueReader& reader);
  bool complete();
  void returned(size_t number, int64_t result);
  void advance(size_t number);
  void hand_over();
  void give_back(virtio::QueueReader& reader);
  void finish_all(virtio::QueueReader& reader);

  os::IoRing& ring_;
  const Disk& disk_;
  Begin begin_;
  Finish finish_;
  std::vector<Job> jobs_;
  std::vector<size_t> idle_;  // numbers of jobs
  size_t begun_ = 0;
  std::vector<virtio::Used> finished_;  // not told the driver yet
};

}  // namespace tskata::devices::blk
