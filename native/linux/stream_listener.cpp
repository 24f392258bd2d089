// The listener's thread: accepts, and reads the ids of tagged streams as they come.
#include "linux/stream_listener.h"

#include <endian.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <vector>

namespace tskata::os {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto tag_timeout = std::chrono::seconds(10);
constexpr size_t max_untagged = 256;
constexpr auto rest = std::chrono::milliseconds(100);

struct Untagged {
  Descriptor stream;
  Clock::time_point deadline;
  unsigned char bytes[8];
  size_t length = 0;
};

// True when it is finished with: its id is whole (then it was handed on), or it is broken.
bool read_tag(Untagged& waiting, const StreamListener::OnStream& on_stream) {
  const ssize_t length = ::recv(waiting.stream.get(), waiting.bytes + waiting.length, sizeof waiting.bytes - waiting.length, MSG_DONTWAIT);
  if (length < 0) return errno != EAGAIN && errno != EINTR;
  if (length == 0) return true;
  waiting.length += static_cast<size_t>(length);
  if (waiting.length < sizeof waiting.bytes) return false;
  uint64_t id;
  std::memcpy(&id, waiting.bytes, sizeof id);
  on_stream(std::move(waiting.stream), be64toh(id));
  return true;
}

}  // namespace

Descriptor listen_vsock(unsigned port, uint64_t receive_bytes) {
  Descriptor listener(checked(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket(AF_VSOCK)"));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  checked(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind(AF_VSOCK)");
  if (receive_bytes != 0) {  // its streams inherit both
    for (const int option : {SO_VM_SOCKETS_BUFFER_MAX_SIZE, SO_VM_SOCKETS_BUFFER_SIZE})
      checked(::setsockopt(listener.get(), AF_VSOCK, option, &receive_bytes, sizeof receive_bytes), "setsockopt(AF_VSOCK)");
  }
  checked(::listen(listener.get(), 128), "listen(AF_VSOCK)");
  return listener;
}

Descriptor connect_vsock_host(unsigned port) {
  Descriptor socket(checked(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket(AF_VSOCK)"));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_HOST;
  address.svm_port = port;
  checked(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect(AF_VSOCK)");
  return socket;
}

StreamListener::StreamListener(Descriptor listener, bool tagged, OnStream on_stream)
    : listener_(std::move(listener)),
      stop_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")),
      tagged_(tagged),
      on_stream_(std::move(on_stream)),
      thread_([this] { run(); }) {}

StreamListener::~StreamListener() {
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void StreamListener::run() {
  std::vector<Untagged> untagged;
  bool resting = false;
  for (;;) {
    const bool listens = !resting && untagged.size() < max_untagged;
    std::vector<pollfd> wait{{stop_.get(), POLLIN, 0}, {listens ? listener_.get() : -1, POLLIN, 0}};
    for (const Untagged& stream : untagged) wait.push_back({stream.stream.get(), POLLIN, 0});
    const int patience = resting ? static_cast<int>(rest.count()) : untagged.empty() ? -1 : 1000;
    if (::poll(wait.data(), wait.size(), patience) < 0) continue;
    resting = false;
    if (wait[0].revents != 0) return;
    for (size_t i = 0; i < untagged.size(); ++i) {
      if (wait[i + 2].revents != 0 && read_tag(untagged[i], on_stream_)) untagged[i].stream.reset();
    }
    const auto now = Clock::now();
    std::erase_if(untagged, [&](const Untagged& stream) { return !stream.stream || stream.deadline < now; });
    if (wait[1].revents == 0) continue;
    Descriptor stream(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!stream) {
      resting = true;  // without a descriptor for it the connection stays, and the listener readable
      continue;
    }
    if (tagged_) untagged.push_back({std::move(stream), now + tag_timeout, {}, 0});
    else on_stream_(std::move(stream), 0);
  }
}

}  // namespace tskata::os
