// virtio-fs (virtio 1.2 §5.11): the FUSE server on virtqueues.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "devices/fs/server.h"
#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::devices::fs {

struct FsOptions {
  std::string root;
  std::string tag;
  unsigned threads = 4;
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

 private:
  // Workers of one queue. One of them waits for the next request and hands the wait to another before it serves: a slow request
  // never keeps the next from being taken, and an idle queue wakes one thread.
  struct Workers {
    virtio::ActiveQueue queue;
    os::Descriptor stop;
    std::mutex turn;
    std::vector<std::thread> threads;
    bool broken = false;
    std::atomic<bool> stopping = false;
  };

  void work(Workers& workers);
  bool wait_for_request(Workers& workers, virtio::Chain& chain);

  FsOptions options_;
  Server server_;
  std::array<std::unique_ptr<Workers>, 2> workers_;
};

}  // namespace tskata::devices::fs
