// Seqpacket sockets served by a thread: a connected one, and a listening one that takes descriptors.
#pragma once
#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "linux/fd_passing.h"

namespace tskata::os {

// Owns a connected seqpacket socket. `on_message` runs on the socket's thread; an empty message is the peer's end and the last call.
class PacketSocket {
 public:
  PacketSocket(Descriptor socket, std::function<void(std::vector<std::byte>)> on_message);
  ~PacketSocket();
  void send(std::span<const std::byte> message);  // throws when the peer is gone

 private:
  void run();
  Descriptor socket_;
  Descriptor stop_;
  std::function<void(std::vector<std::byte>)> on_message_;
  std::thread thread_;
};

// Accepts connections at `path`; every message of each is handed on with its descriptors. The socket file goes with the object.
class FdReceiver {
 public:
  FdReceiver(std::string path, std::function<void(Packet)> on_packet);
  ~FdReceiver();

 private:
  void run();
  std::string path_;
  std::function<void(Packet)> on_packet_;
  Descriptor listener_;
  Descriptor stop_;
  std::thread thread_;
};

}  // namespace tskata::os
