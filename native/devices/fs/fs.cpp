// virtio-fs: queues and threads around the FUSE server.
#include "devices/fs/fs.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "jail/jail.h"

namespace tskata::devices::fs {

namespace {

constexpr size_t request_queue = 1;  // after hiprio

FsOptions checked_options(FsOptions options) {
  if (options.tag.empty() || options.tag.size() > 36) throw std::invalid_argument("virtio-fs tag must have 1 to 36 bytes");
  options.threads = std::max(1u, options.threads);
  return options;
}

}  // namespace

FsDevice::FsDevice(FsOptions options)
    : options_(checked_options(std::move(options))),
      server_({options_.root, std::move(options_.keeper), options_.descriptor_budget, options_.writeback, options_.share}),
      registered_(static_cast<ptrdiff_t>(1 + options_.threads)) {
  for (size_t index = 0; index < services_.size(); ++index) {
    for (size_t i = 0; i < thread_count(index); ++i) threads_.emplace_back([this, index] { run_worker(index); });
  }
  registered_.wait();
}

FsDevice::~FsDevice() {
  for (size_t index = 0; index < services_.size(); ++index) stop_queue(index);
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void FsDevice::read_config(size_t offset, std::span<std::byte> out) const {
  std::array<std::byte, 40> config{};  // §5.11.4: tag[36], num_request_queues
  std::memcpy(config.data(), options_.tag.data(), options_.tag.size());
  config[36] = std::byte{1};
  virtio::copy_config(config, offset, out);
}

void FsDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  stop_queue(index);
  // Nobody waits for what comes by the other one.
  const auto patience = index == request_queue ? options_.patience : std::chrono::microseconds{};
  auto service = std::make_unique<Service>(std::move(queue), patience);
  {
    const std::lock_guard lock(mutex_);
    service->number = ++last_number_;
    services_[index] = std::move(service);
  }
  changed_.notify_all();
}

void FsDevice::stop_queue(size_t index) {
  std::unique_lock lock(mutex_);
  Service* const service = services_[index].get();
  if (service == nullptr) return;
  service->reader.stop();
  changed_.wait(lock, [&] { return service->workers == 0; });
  services_[index].reset();
}

void FsDevice::reset() { server_.reset(); }

void FsDevice::run_worker(size_t index) {
  Server::prepare_thread();
  jail::enter_thread(jail::Role::fs_worker, [this] { registered_.count_down(); });
  uint64_t last = 0;
  while (Service* const service = next_service(index, last)) {
    last = service->number;
    work(*service);
  }
}

// Waits for a start of the queue that this thread has not served yet; none at the device's end.
FsDevice::Service* FsDevice::next_service(size_t index, uint64_t last) {
  std::unique_lock lock(mutex_);
  Service* next = nullptr;
  changed_.wait(lock, [&] {
    next = services_[index].get();
    return ending_ || (next != nullptr && next->number > last && !next->reader.stopped());
  });
  if (ending_) return nullptr;
  ++next->workers;
  return next;
}

void FsDevice::work(Service& service) {
  try {
    virtio::QueueWorkers::each([this](const virtio::Chain& chain) { return server_.serve(chain.readable, chain.writable); })(service.reader);
    leave(service, nullptr);
  } catch (const std::exception& error) {  // QueueFault, or a host that is out of memory or descriptors: not the pod's end
    leave(service, error.what());
  }
}

void FsDevice::leave(Service& service, const char* fault) {
  const std::lock_guard lock(mutex_);
  // Said once, however many threads see it.
  if (fault != nullptr && !std::exchange(service.broken, true)) std::fprintf(stderr, "fs: queue stopped: %s\n", fault);
  if (fault != nullptr) service.reader.stop();
  --service.workers;
  changed_.notify_all();
}

}  // namespace tskata::devices::fs
