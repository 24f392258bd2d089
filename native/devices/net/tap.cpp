// ioctls of /dev/net/tun (Linux, Documentation/networking/tuntap.rst).
#include "devices/net/tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <stdexcept>

#include "devices/net/packet.h"

namespace tskata::devices::net {

using os::checked;

namespace {

bool is_packet_socket(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

bool is_tap(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0) return false;
  constexpr short wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if ((request.ifr_flags & wanted) != wanted) throw std::invalid_argument("the tap lacks IFF_NO_PI or IFF_VNET_HDR");
  return true;
}

}  // namespace

Tap::Tap(os::Descriptor fd) : fd_(std::move(fd)) {
  is_tap_ = is_tap(fd_.get());
  if (!is_tap_ && !is_packet_socket(fd_.get())) throw std::invalid_argument("a network device needs a tap");
  checked(::fcntl(fd_.get(), F_SETFL, checked(::fcntl(fd_.get(), F_GETFL), "fcntl") | O_NONBLOCK), "fcntl");
  if (!is_tap_) return;
  int header = sizeof(PacketHeader);
  checked(::ioctl(fd_.get(), TUNSETVNETHDRSZ, &header), "TUNSETVNETHDRSZ");
  set_offloads(0);
}

void Tap::set_offloads(uint64_t features) {
  if (!is_tap_) return;
  const auto accepted = [&](uint64_t feature) { return (features & feature) != 0; };
  unsigned flags = 0;
  // §5.1.3.1: all the others need GUEST_CSUM; the kernel refuses them without it.
  if (accepted(feature_guest_csum)) {
    flags = TUN_F_CSUM;
    if (accepted(feature_guest_tso4)) flags |= TUN_F_TSO4;
    if (accepted(feature_guest_tso6)) flags |= TUN_F_TSO6;
    if (accepted(feature_guest_ecn) && (flags & (TUN_F_TSO4 | TUN_F_TSO6)) != 0) flags |= TUN_F_TSO_ECN;
    if (accepted(feature_guest_ufo)) flags |= TUN_F_UFO;
  }
  // Fails when the host has removed the interface, which is no reason for a reset to fail.
  (void)::ioctl(fd_.get(), TUNSETOFFLOAD, flags);
}

bool Tap::attach(bool attached) {
  if (attached == attached_) return true;
  if (is_tap_) {
    ifreq request{};
    request.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    if (::ioctl(fd_.get(), TUNSETQUEUE, &request) != 0) return false;
  }
  attached_ = attached;
  return true;
}

ssize_t Tap::read(std::span<const iovec> to) const {
  ssize_t result;
  do result = ::readv(fd_.get(), to.data(), static_cast<int>(to.size()));
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

ssize_t Tap::write(std::span<const iovec> from) const {
  ssize_t result;
  if (is_tap_) {
    do result = ::writev(fd_.get(), from.data(), static_cast<int>(from.size()));
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
  }
  msghdr message{};  // a socket whose peer has gone would raise SIGPIPE on writev
  message.msg_iov = const_cast<iovec*>(from.data());
  message.msg_iovlen = from.size();
  do result = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

}  // namespace tskata::devices::net
