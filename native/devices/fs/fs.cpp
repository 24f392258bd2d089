// virtio-fs: queues and threads around the FUSE server.
#include "devices/fs/fs.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace tskata::devices::fs {

using os::checked;

FsDevice::FsDevice(FsOptions options) : options_(std::move(options)), server_(options_.root) {
  if (options_.tag.empty() || options_.tag.size() > 36) throw std::invalid_argument("virtio-fs tag must have 1 to 36 bytes");
}

FsDevice::~FsDevice() {
  for (size_t index = 0; index < workers_.size(); ++index) stop_queue(index);
}

void FsDevice::read_config(size_t offset, std::span<std::byte> out) const {
  std::array<std::byte, 40> config{};  // §5.11.4: tag[36], num_request_queues
  std::memcpy(config.data(), options_.tag.data(), options_.tag.size());
  config[36] = std::byte{1};
  std::ranges::fill(out, std::byte{0});
  for (size_t i = 0; i < out.size() && offset + i < config.size(); ++i) out[i] = config[offset + i];
}

void FsDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  auto workers = std::make_unique<Workers>();
  workers->queue = std::move(queue);
  workers->stop.reset(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
  const unsigned threads = index == 0 ? 1 : std::max(1u, options_.threads);
  for (unsigned i = 0; i < threads; ++i) workers->threads.emplace_back([this, &it = *workers] { work(it); });
  workers_[index] = std::move(workers);
}

void FsDevice::stop_queue(size_t index) {
  if (!workers_[index]) return;
  workers_[index]->stopping = true;  // for a worker that never comes to wait, since the guest keeps the queue full
  const uint64_t one = 1;
  (void)!::write(workers_[index]->stop.get(), &one, sizeof one);
  for (std::thread& thread : workers_[index]->threads) thread.join();
  workers_[index].reset();
}

void FsDevice::reset() { server_.reset(); }

// Takes the next request, waiting for one; false when the queue is stopping or broken. The caller holds the turn.
bool FsDevice::wait_for_request(Workers& workers, virtio::Chain& chain) {
  virtio::Queue& queue = *workers.queue.queue;
  while (!workers.broken && !workers.stopping) {
    if (queue.pop(chain)) return true;
    if (queue.enable_notifications()) continue;
    std::array<pollfd, 2> wait{{{workers.queue.kick, POLLIN, 0}, {workers.stop.get(), POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) return false;
    if ((wait[1].revents & POLLIN) != 0) return false;
    uint64_t kicks;
    if ((wait[0].revents & POLLIN) != 0) (void)!::read(workers.queue.kick, &kicks, sizeof kicks);
    queue.disable_notifications();
  }
  return false;
}

void FsDevice::work(Workers& workers) {
  Server::prepare_thread();
  virtio::Chain chain;
  for (;;) {
    try {
      {
        const std::lock_guard turn(workers.turn);
        if (!wait_for_request(workers, chain)) return;
      }
      const size_t written = server_.serve(chain.readable, chain.writable);
      if (workers.queue.queue->push(chain.head, static_cast<uint32_t>(written))) workers.queue.interrupt();
    } catch (const virtio::QueueFault& error) {
      const std::lock_guard turn(workers.turn);
      if (!workers.broken) std::fprintf(stderr, "fs: queue stopped: %s\n", error.what());
      workers.broken = true;
    }
  }
}

}  // namespace tskata::devices::fs
