// The back-end side of the vhost-user protocol (QEMU docs, interop/vhost-user): attaches a device backend to a VMM in another process.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "linux/descriptor.h"
#include "virtio/device.h"

namespace tskata::transport {

// Serves one device to one front-end on a unix socket. The socket file disappears as soon as the front-end has connected, so a second
// front-end, or a reconnect, is refused by the kernel.
class VhostUserServer {
 public:
  // `on_end` is called once, from the server's thread: an empty text when the front-end went away, else why it was refused.
  VhostUserServer(std::shared_ptr<virtio::Device> device, std::string path, std::function<void(std::string)> on_end);
  ~VhostUserServer();  // stops the queues, closes the connection, joins the thread

 private:
  void run();

  std::shared_ptr<virtio::Device> device_;
  std::string path_;
  std::function<void(std::string)> on_end_;
  os::Descriptor listener_;
  os::Descriptor stop_;
  std::thread thread_;
};

}  // namespace tskata::transport
