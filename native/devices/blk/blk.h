// virtio-blk (virtio 1.2 §5.2): a file or block device as the guest's disk.
#pragma once
#include <memory>
#include <string>

#include "devices/blk/disk.h"
#include "devices/blk/request.h"
#include "virtio/device.h"
#include "virtio/queue_workers.h"

namespace tskata::devices::blk {

struct BlkOptions {
  os::Descriptor file;
  bool readonly = false;
  std::string id;        // what the guest sees as the serial number, at most 20 bytes
  unsigned threads = 2;  // requests served at a time where there is no ring
  bool ring = true;      // whether a ring is asked for at all
};

class BlkDevice final : public virtio::Device {
 public:
  // Makes the ring, too: a jail that closes later lets pass its use, and no other's making.
  explicit BlkDevice(BlkOptions options);

  bool has_ring() const { return ring_ != nullptr; }

  uint32_t device_id() const override { return 2; }
  uint64_t features() const override;
  size_t queue_count() const override { return 1; }
  uint16_t max_queue_size() const override { return 256; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void set_features(uint64_t features) override { accepted_ = features; }
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override { accepted_ = 0; }

 private:
  // Of a request: its status when nothing of the work fails that it puts down.
  Status begin(const virtio::Chain& chain, uint64_t accepted, Work& work) const;
  size_t finish(const virtio::Chain& chain, Status status) const;
  virtio::QueueWorkers::Body by_ring() const;
  virtio::QueueWorkers::Body by_threads() const;

  Status plan(const RequestHeader& header, const virtio::Chain& chain, uint64_t accepted, Work& work) const;
  Status read(uint64_t sector, const virtio::Chain& chain, Work& work) const;
  Status write(uint64_t sector, const virtio::Chain& chain, bool durable, Work& work) const;
  Status flush(Work& work) const;
  Status give_id(const virtio::Chain& chain) const;
  Status clear(uint32_t type, const virtio::Chain& chain, bool durable, Work& work) const;
  Status clear_segment(uint32_t type, const Segment& segment, Work& work) const;
  bool inside(uint64_t sector, uint64_t bytes) const;

  Disk disk_;
  std::unique_ptr<os::IoRing> ring_;
  std::string id_;
  unsigned threads_;
  uint64_t accepted_ = 0;  // of the transport's thread; a queue's threads have the value of its start
  std::unique_ptr<virtio::QueueWorkers> workers_;
};

}  // namespace tskata::devices::blk
