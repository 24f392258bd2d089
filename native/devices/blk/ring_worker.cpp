// Requests through a ring.
#include "devices/blk/ring_worker.h"

#include <poll.h>

namespace tskata::devices::blk {

RingWorker::RingWorker(os::IoRing& ring, const Disk& disk, Begin begin, Finish finish)
    : ring_(ring), disk_(disk), begin_(std::move(begin)), finish_(std::move(finish)), jobs_(ring.entries()) {
  for (size_t number = jobs_.size(); number > 0; --number) idle_.push_back(number - 1);
}

void RingWorker::run(virtio::QueueReader& reader) {
  try {
    serve(reader);
  } catch (...) {
    finish_all(reader);
    throw;
  }
  finish_all(reader);
}

void RingWorker::serve(virtio::QueueReader& reader) {
  while (!reader.stopped()) {
    const bool completed = complete();
    const bool started = start(reader);
    hand_over();
    give_back(reader);
    if (completed || started) continue;
    // Asking for the kick and looking again closes the race of §2.7.13.3.1. Without room there is nothing to ask for.
    if (!idle_.empty() && reader.queue().enable_notifications()) continue;
    if (!reader.wait_for_kick_or(ring_.fd())) return;
    reader.queue().disable_notifications();
  }
}

// Takes what the driver has and there is room for; whether there was anything.
bool RingWorker::start(virtio::QueueReader& reader) {
  bool any = false;
  while (!idle_.empty() && !reader.stopped()) {
    const size_t number = idle_.back();
    Job& job = jobs_[number];
    if (!reader.queue().pop(job.chain)) break;
    any = true;
    job.work.clear();
    job.status = begin_(job.chain, job.work);
    idle_.pop_back();
    ++begun_;
    advance(number);
  }
  return any;
}

bool RingWorker::complete() {
  bool any = false;
  while (const auto completion = ring_.take()) {
    any = true;
    returned(completion->tag, completion->result);
  }
  return any;
}

void RingWorker::returned(size_t number, int64_t result) {
  Work& work = jobs_[number].work;
  // Not for want of a disk: a descriptor of the caller's that does not wait (O_NONBLOCK) is taken at its word by a ring.
  if (result == -EAGAIN) result = disk_.make(*work.next());
  work.returned(result);
  advance(number);
}

void RingWorker::advance(size_t number) {
  Job& job = jobs_[number];
  if (const Call* const call = job.work.next()) return ring_.add(for_ring(*call), number);
  const size_t written = finish_(job.chain, job.work.failed() ? Status::failed : job.status);
  finished_.push_back({job.chain.head, static_cast<uint32_t>(std::min<size_t>(written, UINT32_MAX))});
  idle_.push_back(number);
  --begun_;
}

// A kernel that takes no more (it is out of memory) leaves us to make the calls ourselves.
void RingWorker::hand_over() {
  if (ring_.submit() == 0) return;
  while (const auto number = ring_.take_back()) returned(*number, disk_.make(*jobs_[*number].work.next()));
}

void RingWorker::give_back(virtio::QueueReader& reader) {
  if (finished_.empty()) return;
  reader.put(finished_);
  finished_.clear();
}

void RingWorker::finish_all(virtio::QueueReader& reader) {
  while (begun_ > 0) {
    hand_over();
    if (complete() || begun_ == 0) continue;
    pollfd wait{ring_.fd(), POLLIN, 0};
    (void)::poll(&wait, 1, -1);
  }
  give_back(reader);
}

}  // namespace tskata::devices::blk
