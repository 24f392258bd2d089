// Messages with descriptors over unix sockets (SCM_RIGHTS).
#pragma once
#include <span>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::os {

constexpr size_t max_passed_fds = 16;
constexpr size_t max_packet = 4096;

struct Packet {
  std::vector<std::byte> bytes;  // empty and no descriptors: the peer is gone
  std::vector<Descriptor> fds;
};

// Sends one message with descriptors attached; blocks.
void send_packet(int socket, std::span<const std::byte> bytes, std::span<const int> fds);

// Receives one message (a whole one on seqpacket). Throws EAGAIN on a non-blocking socket without one.
Packet receive_packet(int socket);

}  // namespace tskata::os
