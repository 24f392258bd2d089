// Listens for streams on an AF_VSOCK port, or on a unix socket for tests.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "linux/descriptor.h"

namespace tskata::os {

// `receive_bytes`: what each of its streams holds for a reader that is behind; 0: the kernel's 256 KiB.
Descriptor listen_vsock(unsigned port, uint64_t receive_bytes);
// Connects to a port of the host; blocks.
Descriptor connect_vsock_host(unsigned port);

// Hands every accepted connection on, from a thread of its own. Tagged: each connection opens with an 8-byte big-endian id, which is
// read first; one that does not send it in time is closed.
class StreamListener {
 public:
  using OnStream = std::function<void(Descriptor stream, uint64_t id)>;

  StreamListener(Descriptor listener, bool tagged, OnStream on_stream);
  ~StreamListener();

 private:
  void run();

  Descriptor listener_;
  Descriptor stop_;
  bool tagged_;
  OnStream on_stream_;
  std::thread thread_;
};

}  // namespace tskata::os
