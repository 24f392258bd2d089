// virtio-vsock (virtio 1.2 §5.10): streams between guest ports and unix sockets of the host.
//
// A stream's life, host side first:   REQUEST → RESPONSE (open) … RW both ways … SHUTDOWN(send) each way … RST (gone).
// A refused request is answered by RST. Data always precedes the SHUTDOWN that ends its direction, and what the guest sent before it
// closed (or even reset) is delivered to the host socket before that is closed: a slow reader on the host loses nothing.
//
// Flow control: each side announces buf_alloc, its receive space, and fwd_cnt, what its application has taken; the peer may have
// buf_alloc − (sent − fwd_cnt) bytes more on the way. Ours is `receive_space`; bytes that a full host socket refuses wait in the
// connection's buffer, within that space, so a guest cannot make us hold more. Each side tells of new space by itself: we answer a
// CREDIT_REQUEST and send none.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "devices/vsock/packet.h"
#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::devices::vsock {

struct VsockOptions {
  uint64_t guest_cid = 3;
  std::string path;                   // base of the host's socket names, see createVsock in src/native.ts
  std::vector<uint32_t> guest_ports;  // ports with a direct socket `path`_g<port>
};

class VsockDevice final : public virtio::Device {
 public:
  // Called once, from the device's thread: 0 and the host's port, or an errno.
  using Connected = std::function<void(int error, uint32_t host_port)>;

  explicit VsockDevice(VsockOptions options);
  ~VsockDevice() override;

  uint32_t device_id() const override { return 19; }
  uint64_t features() const override { return virtio::feature_indirect_desc | virtio::feature_event_idx; }
  size_t queue_count() const override { return 3; }
  uint16_t max_queue_size() const override { return 1024; }
  void read_config(size_t offset, std::span<std::byte> out) const override;
  void start_queue(size_t index, virtio::ActiveQueue queue) override;
  void stop_queue(size_t index) override;
  void reset() override;

  // Opens a stream from `socket` to a guest port. Waits for the driver when it is not ready yet.
  void connect(uint32_t guest_port, os::Descriptor socket, Connected connected);
  // No driver will come any more: who waits for one, now or later, is refused (ENOTCONN; sockets close). What the guest sent is delivered.
  void guest_has_gone();

 private:
  struct Key {
    uint32_t guest_port;
    uint32_t host_port;
    auto operator<=>(const Key&) const = default;
  };
  struct Connection;
  struct Listener;
  struct Handshake;
  struct Pollable;

  void run();
  void post(std::function<void()> task);
  void post_and_wait(std::function<void()> task);
  void run_tasks();
  void watch(int fd, uint32_t events, Pollable* what);

  void on_transmit();
  void receive_packet(const PacketHeader& header, std::span<const iovec> payload);
  void on_request(const PacketHeader& header);
  void on_data(Connection& connection, std::span<const iovec> payload, size_t length);
  void on_shutdown(Connection& connection, uint32_t flags);
  void on_guest_reset(Connection& connection);
  void flush(Connection& connection);
  void after_flush(Connection& connection);
  void update_credit(Connection& connection, const PacketHeader& header);

  void fill_receive();
  void fill_buffers();
  bool fill_one(virtio::Chain& chain);
  void make_ready(Connection& connection);
  bool send_data(Connection& connection, virtio::Chain& chain);
  void put_packet(virtio::Chain& chain, const PacketHeader& header, size_t payload);
  PacketHeader header_for(const Connection& connection, uint16_t op) const;
  void send_control(Connection& connection, uint16_t op, uint32_t flags = 0);
  void send_reset(const PacketHeader& to);
  void end_connections();
  void close_when_delivered(Connection& connection);
  void close_connection(Connection& connection);
  void fault(size_t queue, const std::exception& error);

  void accept_all(Listener& listener);
  void read_handshake(Handshake& handshake);
  Connection& add_connection(Key key, os::Descriptor socket, Connected connected);
  void open_host_connection(uint32_t guest_port, os::Descriptor socket, Connected connected);
  uint32_t free_host_port();

  VsockOptions options_;
  os::Descriptor epoll_;
  os::Descriptor wake_;
  std::array<virtio::ActiveQueue, 3> queues_;
  std::unique_ptr<Pollable> wake_poll_;
  std::array<std::unique_ptr<Pollable>, 3> kick_polls_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::map<int, std::unique_ptr<Handshake>> handshakes_;
  std::map<Key, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> closed_;  // freed at the end of an event round
  std::deque<PacketHeader> control_;
  std::deque<Key> ready_;
  bool interrupt_receive_ = false;
  bool guest_gone_ = false;
  uint32_t next_host_port_ = 1u << 30;

  std::mutex tasks_mutex_;
  std::vector<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tskata::devices::vsock
