// Threads around seqpacket sockets.
#include "linux/packet_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <vector>

#include "jail/jail.h"
#include "linux/unix_socket.h"

namespace tskata::os {

namespace {

void signal_stop(int fd) {
  const uint64_t one = 1;
  (void)!::write(fd, &one, sizeof one);
}

}  // namespace

PacketSocket::PacketSocket(Descriptor socket, std::function<void(std::vector<std::byte>)> on_message)
    : socket_(std::move(socket)),
      stop_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      on_message_(std::move(on_message)),
      thread_([this] { run(); }) {}

PacketSocket::~PacketSocket() {
  signal_stop(stop_.get());
  thread_.join();
}

void PacketSocket::send(std::span<const std::byte> message) { send_packet(socket_.get(), message, {}); }

void PacketSocket::run() {
  jail::enter_thread(jail::Role::descriptors);
  for (;;) {
    std::array<pollfd, 2> wait{{{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno == EINTR) continue;
    if ((wait[1].revents & POLLIN) != 0) return;
    std::vector<std::byte> message;
    try {
      message = receive_packet(socket_.get()).bytes;
    } catch (const std::system_error&) {
      // a reset is an end as well
    }
    const bool last = message.empty();
    on_message_(std::move(message));
    if (last) return;
  }
}

FdReceiver::FdReceiver(std::string path, std::function<void(Packet)> on_packet)
    : path_(std::move(path)),
      on_packet_(std::move(on_packet)),
      listener_(listen_unix(path_, SOCK_SEQPACKET, 64)),
      stop_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      thread_([this] { run(); }) {}

FdReceiver::~FdReceiver() {
  signal_stop(stop_.get());
  thread_.join();
  ::unlink(path_.c_str());
}

void FdReceiver::run() {
  jail::enter_thread(jail::Role::descriptors);
  constexpr size_t max_peers = 64;
  constexpr int out_of_descriptors_ms = 10;
  std::vector<Descriptor> peers;
  for (;;) {
    std::vector<pollfd> wait{{stop_.get(), POLLIN, 0}, {peers.size() < max_peers ? listener_.get() : -1, POLLIN, 0}};
    for (const Descriptor& peer : peers) wait.push_back({peer.get(), POLLIN, 0});
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno == EINTR) continue;
    if (wait[0].revents != 0) return;
    for (size_t i = 0; i < peers.size(); ++i) {
      if (wait[i + 2].revents == 0) continue;
      try {
        Packet packet = receive_packet(peers[i].get());
        if (packet.bytes.empty()) peers[i].reset();
        else on_packet_(std::move(packet));
      } catch (const std::system_error&) {
        peers[i].reset();
      }
    }
    std::erase_if(peers, [](const Descriptor& peer) { return !peer; });
    if (wait[1].revents != 0) {
      Descriptor peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (peer) peers.push_back(std::move(peer));
      else ::poll(wait.data(), 1, out_of_descriptors_ms);  // it still waits, and poll would say so without end
    }
  }
}

}  // namespace tskata::os
