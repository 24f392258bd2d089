// virtio-fs: queues and threads around the FUSE server.
#include "devices/fs/fs.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace tskata::devices::fs {

FsDevice::FsDevice(FsOptions options) : options_(std::move(options)), server_(options_.root) {
  if (options_.tag.empty() || options_.tag.size() > 36) throw std::invalid_argument("virtio-fs tag must have 1 to 36 bytes");
}

void FsDevice::read_config(size_t offset, std::span<std::byte> out) const {
  std::array<std::byte, 40> config{};  // §5.11.4: tag[36], num_request_queues
  std::memcpy(config.data(), options_.tag.data(), options_.tag.size());
  config[36] = std::byte{1};
  virtio::copy_config(config, offset, out);
}

void FsDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  const unsigned threads = index == 0 ? 1 : options_.threads;
  workers_[index] = std::make_unique<virtio::QueueWorkers>("fs", std::move(queue), threads, [this](virtio::QueueReader& reader) {
    Server::prepare_thread();
    virtio::QueueWorkers::each([this](const virtio::Chain& chain) { return server_.serve(chain.readable, chain.writable); })(reader);
  });
}

void FsDevice::stop_queue(size_t index) { workers_[index].reset(); }

void FsDevice::reset() { server_.reset(); }

}  // namespace tskata::devices::fs
