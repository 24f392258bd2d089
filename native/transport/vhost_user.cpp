// vhost-user back-end: messages, memory table, rings.
#include "transport/vhost_user.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <mutex>

#include "jail/jail.h"
#include "linux/proc_path.h"
#include "linux/unix_socket.h"

namespace tskata::transport {

namespace {

using os::checked;
using os::Descriptor;

enum Request : uint32_t {
  get_features = 1,
  set_features = 2,
  set_owner = 3,
  reset_owner = 4,
  set_mem_table = 5,
  set_vring_num = 8,
  set_vring_addr = 9,
  set_vring_base = 10,
  get_vring_base = 11,
  set_vring_kick = 12,
  set_vring_call = 13,
  set_vring_err = 14,
  get_protocol_features = 15,
  set_protocol_features = 16,
  get_queue_num = 17,
  set_vring_enable = 18,
  get_config = 24,
  set_config = 25,
  reset_device = 34,
  set_status = 39,
  get_status = 40,
};

constexpr uint32_t flag_version = 1;
constexpr uint32_t flag_reply = 1 << 2;
constexpr uint32_t flag_need_reply = 1 << 3;
constexpr uint64_t feature_protocol = 1ull << 30;  // VHOST_USER_F_PROTOCOL_FEATURES
constexpr uint64_t protocol_mq = 1ull << 0;
constexpr uint64_t protocol_reply_ack = 1ull << 3;
constexpr uint64_t protocol_config = 1ull << 9;
constexpr uint64_t protocol_reset_device = 1ull << 13;
constexpr uint64_t protocol_status = 1ull << 16;
constexpr uint64_t supported_protocol = protocol_mq | protocol_reply_ack | protocol_config | protocol_reset_device | protocol_status;
constexpr uint32_t device_fs = 26;  // virtio 1.2 §5.11
constexpr size_t max_payload = 4096;
constexpr size_t max_fds = 8;
constexpr size_t max_regions = 8;
constexpr size_t max_config = 256;

struct Header {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
};

struct Message {
  Header header{};
  std::array<std::byte, max_payload> payload{};
  std::vector<Descriptor> fds;

  template <typename T>
  T as() const {
    if (header.size < sizeof(T)) throw std::runtime_error("message " + std::to_string(header.request) + " is too short");
    T value;
    std::memcpy(&value, payload.data(), sizeof value);
    return value;
  }
};

struct VringState {
  uint32_t index;
  uint32_t num;
};

struct VringAddress {
  uint32_t index;
  uint32_t flags;
  uint64_t descriptors;
  uint64_t used;
  uint64_t available;
  uint64_t log;
};

struct ConfigHeader {
  uint32_t offset;
  uint32_t size;
  uint32_t flags;
};

struct RegionMessage {
  uint64_t guest_address;
  uint64_t size;
  uint64_t user_address;
  uint64_t offset;
};

// What a ring is kicked or called through. Anything but an eventfd is refused, since epoll, read and write would do there what no
// device expects (block, fail, act); non-blocking, so that a front-end which drains or fills it stops no thread of ours.
Descriptor ring_event(Descriptor fd) {
  std::array<char, 64> target{};
  const ssize_t length = ::readlink(os::proc_path(fd.get()).c_str(), target.data(), target.size());
  checked(static_cast<int>(length), "readlink");
  if (std::string_view(target.data(), static_cast<size_t>(length)) != "anon_inode:[eventfd]") {
    throw std::runtime_error("ring descriptor is not an eventfd");
  }
  checked(::fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK), "fcntl");
  return fd;
}

class Mapping {
 public:
  Mapping(int fd, const RegionMessage& region) : region_(region) {
    if (region.size == 0 || region.offset + region.size < region.size) throw std::runtime_error("memory region of a broken size");
    length_ = region.offset + region.size;
    // Beyond the file's end every access would be SIGBUS.
    struct stat file {};
    checked(::fstat(fd, &file), "fstat guest memory");
    if (length_ > static_cast<uint64_t>(file.st_size)) throw std::runtime_error("memory region beyond the end of its file");
    void* const address = ::mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (address == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap guest memory");
    base_ = static_cast<std::byte*>(address);
  }
  Mapping(Mapping&& other) noexcept : region_(other.region_), base_(std::exchange(other.base_, nullptr)), length_(other.length_) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (base_ != nullptr) ::munmap(base_, length_);
  }

  std::span<std::byte> bytes() const { return {base_ + region_.offset, region_.size}; }
  const RegionMessage& region() const { return region_; }

 private:
  RegionMessage region_;
  std::byte* base_ = nullptr;
  size_t length_ = 0;
};

// Memory and its mappings with one lifetime: queues hold the memory, so the mappings stay while any of them runs.
struct MappedMemory {
  std::vector<Mapping> mappings;
  std::unique_ptr<virtio::GuestMemory> memory;

  uint64_t guest_address(uint64_t user_address) const {
    for (const Mapping& mapping : mappings) {
      const RegionMessage& region = mapping.region();
      if (user_address >= region.user_address && user_address - region.user_address < region.size) {
        return region.guest_address + (user_address - region.user_address);
      }
    }
    throw std::runtime_error("ring address outside the memory table");
  }
};

// The interrupt descriptor may be replaced while the ring runs (SET_VRING_CALL); device threads signal through this.
class CallLine {
 public:
  void set(Descriptor fd) {
    const std::lock_guard lock(mutex_);
    fd_ = std::move(fd);
  }
  void signal() {
    const std::lock_guard lock(mutex_);
    if (!fd_) return;
    const uint64_t one = 1;
    // A full counter (EAGAIN) means an interrupt is pending already.
    (void)!::write(fd_.get(), &one, sizeof one);
  }

 private:
  std::mutex mutex_;
  Descriptor fd_;
};

struct Ring {
  uint16_t size = 0;
  uint16_t base = 0;
  VringAddress address{};
  bool addressed = false;
  bool enabled = false;
  bool running = false;
  Descriptor kick;
  Descriptor error;
  std::shared_ptr<CallLine> call = std::make_shared<CallLine>();
  std::shared_ptr<virtio::Queue> queue;
};

// One front-end's connection.
class Session {
 public:
  Session(virtio::Device& device, Descriptor socket) : device_(device), socket_(std::move(socket)), rings_(device.queue_count()) {}
  ~Session() {
    for (size_t index = 0; index < rings_.size(); ++index) stop(index);
    device_.reset();
  }

  // Serves until the front-end goes (returns) or breaks the protocol (throws).
  void serve(int stop_fd);

 private:
  bool receive(Message& message, int stop_fd);
  bool read_all(std::span<std::byte> out, int stop_fd, std::vector<Descriptor>* fds);
  void handle(Message& message);
  template <typename T>
  void reply(const Message& message, const T& value) {
    send(message, {reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  void send(const Message& message, std::span<const std::byte> payload);
  Ring& ring(uint64_t index);
  Descriptor take_ring_fd(Message& message, Ring*& out);
  void set_memory(Message& message);
  void config(const Message& message);
  void write_config(const Message& message);
  void maybe_start(size_t index);
  void stop(size_t index);

  virtio::Device& device_;
  Descriptor socket_;
  std::vector<Ring> rings_;
  std::shared_ptr<MappedMemory> memory_;
  uint64_t features_ = 0;
  uint64_t protocol_ = 0;
  uint8_t status_ = 0;
  bool replied_ = false;
};

bool Session::read_all(std::span<std::byte> out, int stop_fd, std::vector<Descriptor>* fds) {
  while (!out.empty()) {
    std::array<pollfd, 2> wait{{{socket_.get(), POLLIN, 0}, {stop_fd, POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
    if ((wait[1].revents & POLLIN) != 0) return false;
    iovec piece{out.data(), out.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * max_fds)> control{};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got < 0) throw std::system_error(errno, std::generic_category(), "recvmsg");
    if (got == 0) return false;
    for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
      if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof fd);
        Descriptor owned(fd);
        if (fds != nullptr) fds->push_back(std::move(owned));
      }
    }
    // A message may arrive in many parts, each with descriptors.
    if (fds != nullptr && fds->size() > max_fds) throw std::runtime_error("too many descriptors in a message");
    if ((header.msg_flags & MSG_CTRUNC) != 0) throw std::runtime_error("descriptors of a message are lost: no more may be open, or it has too many");
    out = out.subspan(static_cast<size_t>(got));
  }
  return true;
}

bool Session::receive(Message& message, int stop_fd) {
  message.fds.clear();
  if (!read_all({reinterpret_cast<std::byte*>(&message.header), sizeof(Header)}, stop_fd, &message.fds)) return false;
  if ((message.header.flags & 3) != flag_version) throw std::runtime_error("unknown vhost-user version");
  if (message.header.size > max_payload) throw std::runtime_error("message is too long");
  return read_all(std::span(message.payload).first(message.header.size), stop_fd, &message.fds);
}

void Session::send(const Message& message, std::span<const std::byte> payload) {
  const Header header{message.header.request, flag_version | flag_reply, static_cast<uint32_t>(payload.size())};
  std::array<iovec, 2> pieces{{{const_cast<Header*>(&header), sizeof header}, {const_cast<std::byte*>(payload.data()), payload.size()}}};
  msghdr out{};
  out.msg_iov = pieces.data();
  out.msg_iovlen = pieces.size();
  // Never waits: a front-end that asks and does not read would hold this thread, and with it whoever closes the server.
  const int sent = checked(static_cast<int>(::sendmsg(socket_.get(), &out, MSG_NOSIGNAL | MSG_DONTWAIT)), "sendmsg");
  if (static_cast<size_t>(sent) != sizeof header + payload.size()) throw std::runtime_error("the front-end does not read its replies");
  replied_ = true;
}

Ring& Session::ring(uint64_t index) {
  if (index >= rings_.size()) throw std::runtime_error("ring index out of range");
  return rings_[index];
}

Descriptor Session::take_ring_fd(Message& message, Ring*& out) {
  const auto value = message.as<uint64_t>();
  out = &ring(value & 0xff);
  if ((value & 0x100) != 0) return {};  // VHOST_USER_VRING_NOFD_MASK: the front-end polls
  if (message.fds.size() != 1) throw std::runtime_error("ring message without its descriptor");
  return ring_event(std::move(message.fds.front()));
}

void Session::set_memory(Message& message) {
  const auto count = message.as<uint32_t>();
  if (count > max_regions || count != message.fds.size()) throw std::runtime_error("memory table of a broken count");
  if (message.header.size < 8 + count * sizeof(RegionMessage)) throw std::runtime_error("memory table is too short");
  for (size_t index = 0; index < rings_.size(); ++index) stop(index);
  auto mapped = std::make_shared<MappedMemory>();
  std::vector<virtio::MemoryRegion> regions;
  for (size_t i = 0; i < count; ++i) {
    RegionMessage region;
    std::memcpy(&region, message.payload.data() + 8 + i * sizeof region, sizeof region);
    mapped->mappings.emplace_back(message.fds[i].get(), region);
    regions.push_back({region.guest_address, mapped->mappings.back().bytes()});
  }
  mapped->memory = std::make_unique<virtio::GuestMemory>(std::move(regions));
  memory_ = std::move(mapped);
  for (size_t index = 0; index < rings_.size(); ++index) maybe_start(index);
}

void Session::config(const Message& message) {
  const auto asked = message.as<ConfigHeader>();
  if (asked.size > max_config || asked.offset > max_config) throw std::runtime_error("config access out of range");
  std::vector<std::byte> out(sizeof asked + asked.size);
  std::memcpy(out.data(), &asked, sizeof asked);
  device_.read_config(asked.offset, std::span(out).subspan(sizeof asked));
  send(message, out);
}

void Session::write_config(const Message& message) {
  const auto asked = message.as<ConfigHeader>();
  if (asked.size > max_config || asked.offset > max_config) throw std::runtime_error("config access out of range");
  if (message.header.size < sizeof asked + asked.size) throw std::runtime_error("config message is too short");
  device_.write_config(asked.offset, std::span(message.payload).subspan(sizeof asked, asked.size));
}

void Session::maybe_start(size_t index) {
  Ring& it = rings_[index];
  if (it.running || !it.enabled || !it.kick || !it.addressed || it.size == 0 || memory_ == nullptr) return;
  const virtio::QueueLayout layout{it.size, memory_->guest_address(it.address.descriptors), memory_->guest_address(it.address.available),
                                   memory_->guest_address(it.address.used)};
  const std::shared_ptr<const virtio::GuestMemory> memory(memory_, memory_->memory.get());
  it.queue = std::make_shared<virtio::Queue>(memory, layout, features_, it.base);
  it.running = true;
  device_.start_queue(index, {it.queue, it.kick.get(), [call = it.call] { call->signal(); }});
}

void Session::stop(size_t index) {
  Ring& it = rings_[index];
  if (!it.running) return;
  device_.stop_queue(index);
  it.base = it.queue->next_available();
  it.queue.reset();
  it.running = false;
}

void Session::handle(Message& message) {
  switch (message.header.request) {
    case get_features: return reply(message, device_.features() | virtio::feature_version_1 | feature_protocol);
    case set_features:
      features_ = message.as<uint64_t>();
      device_.set_features(features_ & device_.features());
      // Without protocol features rings start enabled.
      if ((features_ & feature_protocol) == 0) {
        for (Ring& it : rings_) it.enabled = true;
      }
      return;
    // A file system's configuration is its tag, which the front-end has from its own command line; QEMU warns of an offer to tell it.
    case get_protocol_features: return reply(message, device_.device_id() == device_fs ? supported_protocol & ~protocol_config : supported_protocol);
    case set_protocol_features: protocol_ = message.as<uint64_t>(); return;
    case get_queue_num: return reply(message, uint64_t{rings_.size()});
    case set_owner: return;
    case reset_owner:
    case reset_device:
      for (size_t index = 0; index < rings_.size(); ++index) stop(index);
      return device_.reset();
    case set_mem_table: return set_memory(message);
    case set_vring_num: {
      const auto state = message.as<VringState>();
      if (state.num == 0 || state.num > device_.max_queue_size()) throw std::runtime_error("ring size out of range");
      ring(state.index).size = static_cast<uint16_t>(state.num);
      return;
    }
    case set_vring_addr: {
      const auto address = message.as<VringAddress>();
      Ring& it = ring(address.index);
      if (it.running) stop(address.index);
      it.address = address;
      it.addressed = true;
      return maybe_start(address.index);
    }
    case set_vring_base: {
      const auto state = message.as<VringState>();
      if (ring(state.index).running) throw std::runtime_error("ring base set while the ring runs");
      ring(state.index).base = static_cast<uint16_t>(state.num);
      return;
    }
    case get_vring_base: {
      const auto state = message.as<VringState>();
      Ring& it = ring(state.index);
      stop(state.index);
      it.kick.reset();  // the ring is stopped until the next kick descriptor
      return reply(message, VringState{state.index, it.base});
    }
    case set_vring_kick: {
      Ring* it = nullptr;
      Descriptor fd = take_ring_fd(message, it);
      const auto index = static_cast<size_t>(it - rings_.data());
      stop(index);
      it->kick = std::move(fd);
      return maybe_start(index);
    }
    case set_vring_call: {
      Ring* it = nullptr;
      Descriptor fd = take_ring_fd(message, it);
      return it->call->set(std::move(fd));
    }
    case set_vring_err: {
      Ring* it = nullptr;
      Descriptor fd = take_ring_fd(message, it);
      it->error = std::move(fd);
      return;
    }
    case set_vring_enable: {
      const auto state = message.as<VringState>();
      Ring& it = ring(state.index);
      it.enabled = state.num != 0;
      if (!it.enabled) return stop(state.index);
      return maybe_start(state.index);
    }
    case get_config: return config(message);
    case set_config: return write_config(message);
    case get_status: return reply(message, uint64_t{status_});
    case set_status: status_ = static_cast<uint8_t>(message.as<uint64_t>()); return;
    default: throw std::runtime_error("unknown request " + std::to_string(message.header.request));
  }
}

void Session::serve(int stop_fd) {
  Message message;
  while (receive(message, stop_fd)) {
    replied_ = false;
    handle(message);
    const bool wants_ack = (protocol_ & protocol_reply_ack) != 0 && (message.header.flags & flag_need_reply) != 0;
    if (wants_ack && !replied_) reply(message, uint64_t{0});
  }
}

}  // namespace

VhostUserServer::VhostUserServer(std::shared_ptr<virtio::Device> device, std::string path, std::function<void(std::string)> on_end)
    : device_(std::move(device)),
      path_(std::move(path)),
      on_end_(std::move(on_end)),
      listener_(os::listen_unix(path_, SOCK_STREAM, 1)),
      stop_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      thread_([this] { run(); }) {}

VhostUserServer::~VhostUserServer() {
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void VhostUserServer::run() {
  jail::enter_thread(jail::Role::vhost_user);
  std::string reason;
  try {
    std::array<pollfd, 2> wait{{{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    while (::poll(wait.data(), wait.size(), -1) < 0 && errno == EINTR) {
    }
    if ((wait[0].revents & POLLIN) != 0) {
      Descriptor socket(checked(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
      ::unlink(path_.c_str());
      listener_.reset();
      Session(*device_, std::move(socket)).serve(stop_.get());
    } else {
      ::unlink(path_.c_str());
    }
  } catch (const std::system_error& error) {
    // A front-end that goes while it is read or answered has gone, no more.
    const bool gone = error.code() == std::errc::broken_pipe || error.code() == std::errc::connection_reset;
    if (!gone) reason = error.what();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  on_end_(reason);
}

}  // namespace tskata::transport
