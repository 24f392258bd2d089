// What the device tests share: a vhost-user front-end with guest memory of its own, checks, and the list of cases.
//
// A case drives a real device through the real transport, as QEMU would: memory is a memfd, rings are filled by hand.
#pragma once
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz/driver_queue.h"
#include "fuzz/temporary.h"
#include "linux/descriptor.h"
#include "transport/vhost_user.h"

namespace tskata::testing {

struct Case {
  std::string name;
  std::function<void()> run;
};
std::vector<Case> transport_cases();
std::vector<Case> queue_cases();
std::vector<Case> vsock_cases();
std::vector<Case> fs_cases();
std::vector<Case> fs_hostile_cases();
std::vector<Case> fs_writeback_cases();
std::vector<Case> host_watch_cases();
std::vector<Case> keeper_cases();
std::vector<Case> proxy_cases();
std::vector<Case> rng_cases();
std::vector<Case> pmem_cases();
std::vector<Case> balloon_cases();
std::vector<Case> blk_cases();
std::vector<Case> console_cases();
std::vector<Case> net_cases();
std::vector<Case> mmio_cases();
std::vector<Case> kvm_cases();

// What a case throws where the host lacks what it tries: it is told as skipped, by an exit of its own.
struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};
constexpr int exit_skipped = 77;
// Skips the case unless the host has what is named.
void need(bool has, const std::string& what);
void need_root();

// Throws with the text and the place.
void expect(bool holds, const std::string& what, int line = __builtin_LINE(), const char* file = __builtin_FILE());

// Until `done` says so, or the test fails.
void eventually(const std::function<bool()>& done, const std::string& what, int line = __builtin_LINE(), const char* file = __builtin_FILE());

struct Region {
  uint64_t guest, size, user, offset;
};

// Numbers of the messages (QEMU docs, interop/vhost-user).
enum Message : uint32_t {
  get_features = 1,
  set_features = 2,
  set_mem_table = 5,
  set_vring_num = 8,
  set_vring_addr = 9,
  set_vring_base = 10,
  get_vring_base = 11,
  set_vring_kick = 12,
  set_vring_call = 13,
  get_protocol_features = 15,
  set_protocol_features = 16,
  get_queue_num = 17,
  set_vring_enable = 18,
  get_config = 24,
  set_config = 25,
};

struct VringState {
  uint32_t index, num;
};

class FrontEnd {
 public:
  static constexpr uint64_t guest_base = 0x40000000;
  static constexpr uint64_t user_base = 0x7f1000000000;
  static constexpr size_t memory_bytes = 4 << 20;
  static constexpr uint16_t queue_size = 64;

  // Connects and negotiates; with `start` it shares memory and starts all queues too.
  explicit FrontEnd(std::shared_ptr<virtio::Device> device, bool start = true, uint64_t features = virtio::feature_indirect_desc);
  ~FrontEnd();

  DriverQueue& queue(size_t index) { return *queues_.at(index); }
  void kick(size_t index);
  // Waits until the device has returned a buffer of the queue; throws after a while.
  Used wait_used(size_t index);
  bool interrupted(size_t index);  // since the last call

  // Guest memory for buffers; never given back.
  uint64_t allocate(size_t bytes);
  std::span<std::byte> at(uint64_t address, size_t bytes);

  void share_memory();
  void start_queue(size_t index);     // with empty rings
  uint32_t stop_queue(size_t index);  // GET_VRING_BASE

  // One message, and the answer's payload for those that have one.
  void send(uint32_t request, std::span<const std::byte> payload, std::span<const int> fds = {});
  template <typename T>
  void send(uint32_t request, const T& payload, std::span<const int> fds = {}) {
    send(request, std::as_bytes(std::span(&payload, 1)), fds);
  }
  std::vector<std::byte> ask(uint32_t request, std::span<const std::byte> payload = {});
  uint64_t ask_number(uint32_t request);

  // The server has ended; what it said (empty: the front-end had gone).
  std::string ended();
  void disconnect() { socket_.reset(); }
  int memory_fd() const { return memory_fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  std::string path_;
  std::promise<std::string> ended_;
  std::future<std::string> end_;
  std::shared_ptr<virtio::Device> device_;
  std::unique_ptr<transport::VhostUserServer> server_;
  os::Descriptor socket_;
  os::Descriptor memory_fd_;
  std::span<std::byte> memory_;
  size_t allocated_ = 0;
  std::vector<uint64_t> rings_;
  std::vector<std::unique_ptr<DriverQueue>> queues_;
  std::vector<os::Descriptor> kicks_;
  std::vector<os::Descriptor> calls_;
  uint64_t features_;
};

// Ways a driver may break a queue; each stops it, and nothing else.
struct Breakage {
  const char* name;
  std::function<void(FrontEnd&, size_t queue)> make;
};
const std::vector<Breakage>& breakages();

// What the device has done with one buffer.
struct Answer {
  uint32_t written;
  std::vector<std::byte> bytes;  // the whole writable part
};
// Sends one buffer: what the device may read, and room for so many bytes, which are 0xee before.
Answer exchange(FrontEnd& front, size_t queue, std::span<const std::byte> readable, size_t room);

// The device returns nothing for these pieces, and no more for what follows on the queue: it has stopped.
void expect_stop(FrontEnd& front, size_t queue, std::span<const RingDescriptor> pieces);

// A buffer that a device takes: what it reads, and room for what it writes; either may be nothing.
struct Sample {
  std::vector<std::byte> request = std::vector<std::byte>(64);
  uint32_t room = 2048;
};

// Buffers like the sample, while another thread changes descriptors, indices and the request; a queue that stops is set up anew.
void flip_tables(FrontEnd& front, size_t queue, const Sample& sample);

// A case for each way to break `queue`: it stops, and `works` holds once it has been set up anew. And one where everything changes while it is
// read.
void add_breakages(std::vector<Case>& out, const std::string& device, size_t queue, const std::function<std::shared_ptr<virtio::Device>()>& make,
                   const std::function<void(FrontEnd&)>& works, const Sample& sample = {}, uint64_t features = virtio::feature_indirect_desc);

}  // namespace tskata::testing
