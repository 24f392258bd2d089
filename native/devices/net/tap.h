// The host's end of a network device: one queue of a tap interface, whose every packet has a header of packet.h before it.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "linux/descriptor.h"

namespace tskata::devices::net {

class Tap {
 public:
  // Takes a tap descriptor (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR), or a seqpacket socket that carries the same bytes: for tests, and for
  // a switch in another process. Throws std::invalid_argument for anything else.
  explicit Tap(os::Descriptor fd);

  int fd() const { return fd_.get(); }
  bool offloads() const { return is_tap_; }

  // What the guest takes, by the features it accepted: packets whose checksums are not computed and that are larger than the MTU. Of the
  // interface: told to one of its queues it holds for all.
  void set_offloads(uint64_t features);

  // A queue that is not attached gets no packets. False when the host refuses.
  bool attach(bool attached);

  // Bytes moved, or a negative errno.
  ssize_t read(std::span<const iovec> to) const;
  ssize_t write(std::span<const iovec> from) const;

 private:
  os::Descriptor fd_;
  bool is_tap_ = false;
  bool attached_ = true;
};

}  // namespace tskata::devices::net
