// virtio-vsock: one thread, an epoll over the queues' kicks and every host socket.
#include "devices/vsock/vsock.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <future>

#include "jail/jail.h"
#include "linux/unix_socket.h"
#include "virtio/complaints.h"
#include "virtio/pieces.h"

namespace tskata::devices::vsock {

using os::checked;
using os::Descriptor;
using virtio::window;

namespace {

constexpr size_t receive_queue = 0;  // §5.10.2, names from the driver's side: rx is ours to fill
constexpr size_t transmit_queue = 1;
constexpr uint32_t receive_space = 256 * 1024;
constexpr size_t max_connections = 4096;
// Answers the guest has provoked and not made room for. Beyond it we stop taking its packets, so it can only stall itself.
constexpr size_t max_control = 1024;
constexpr size_t max_handshakes = 256;
constexpr size_t batch = 256;
constexpr size_t max_round = 4096;

void set_nonblocking(int fd) { checked(::fcntl(fd, F_SETFL, checked(::fcntl(fd, F_GETFL), "fcntl") | O_NONBLOCK), "fcntl"); }

}  // namespace

// What an epoll event points at.
struct VsockDevice::Pollable {
  enum class Kind { wake, kick, listener, handshake, connection };
  Kind kind;
  size_t queue = 0;
  explicit Pollable(Kind k, size_t q = 0) : kind(k), queue(q) {}
};

struct VsockDevice::Listener : Pollable {
  Descriptor socket;
  std::string path;
  uint32_t guest_port;  // 0: the CONNECT form
  Listener(Descriptor s, std::string p, uint32_t port) : Pollable(Kind::listener), socket(std::move(s)), path(std::move(p)), guest_port(port) {}
};

// A connection on the base socket that has not said "CONNECT port\n" yet.
struct VsockDevice::Handshake : Pollable {
  Descriptor socket;
  std::string line;
  explicit Handshake(Descriptor s) : Pollable(Kind::handshake), socket(std::move(s)) {}
};

struct VsockDevice::Connection : Pollable {
  Key key;
  Descriptor socket;
  Connected connected;  // set while our REQUEST is unanswered
  bool open = false;
  bool closed = false;
  bool queued = false;          // in ready_
  bool readable = false;        // the socket may have bytes (edge-triggered)
  bool host_ended = false;      // we have sent SHUTDOWN(send)
  bool host_gone = false;       // the host's end is closed both ways
  bool guest_sent_all = false;  // SHUTDOWN(send) received
  bool guest_takes_none = false;
  bool guest_reset = false;
  std::vector<std::byte> buffer;  // from the guest, refused by a full socket
  size_t buffer_start = 0;
  uint32_t peer_buf_alloc = 0;
  uint32_t peer_fwd_cnt = 0;
  uint32_t sent = 0;       // bytes sent to the guest, modulo 2^32 as the protocol counts
  uint32_t forwarded = 0;  // bytes of the guest's that the host socket has taken
  uint32_t announced = 0;  // `forwarded` as last told

  Connection(Key k, Descriptor s, Connected c) : Pollable(Kind::connection), key(k), socket(std::move(s)), connected(std::move(c)) {}
  size_t buffered() const { return buffer.size() - buffer_start; }
  uint32_t credit() const {
    const uint32_t in_flight = sent - peer_fwd_cnt;
    return in_flight >= peer_buf_alloc ? 0 : peer_buf_alloc - in_flight;
  }
};

VsockDevice::VsockDevice(VsockOptions options)
    : options_(std::move(options)),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      wake_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
      wake_poll_(std::make_unique<Pollable>(Pollable::Kind::wake)) {
  watch(wake_.get(), EPOLLIN, wake_poll_.get());
  auto listen = [this](const std::string& path, uint32_t port) {
    listeners_.push_back(std::make_unique<Listener>(os::listen_unix(path, SOCK_STREAM, 128), path, port));
    watch(listeners_.back()->socket.get(), EPOLLIN, listeners_.back().get());
  };
  listen(options_.path, 0);
  for (const uint32_t port : options_.guest_ports) listen(options_.path + "_g" + std::to_string(port), port);
  thread_ = std::thread([this] { run(); });
}

VsockDevice::~VsockDevice() {
  post([this] { stopping_ = true; });
  thread_.join();
  for (const auto& listener : listeners_) ::unlink(listener->path.c_str());
}

void VsockDevice::read_config(size_t offset, std::span<std::byte> out) const {
  // §5.10.4: guest_cid, little-endian; its upper 32 bits are zero.
  virtio::copy_config(std::as_bytes(std::span(&options_.guest_cid, 1)), offset, out);
}

// -- tasks from other threads ------------------------------------------------------------------------------------------

void VsockDevice::post(std::function<void()> task) {
  {
    const std::lock_guard lock(tasks_mutex_);
    tasks_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void VsockDevice::post_and_wait(std::function<void()> task) {
  std::promise<void> done;
  post([&] {
    try {
      task();
      done.set_value();
    } catch (...) {  // a kick that cannot be watched is the transport's to refuse, not this thread's end
      done.set_exception(std::current_exception());
    }
  });
  done.get_future().get();
}

void VsockDevice::run_tasks() {
  uint64_t count;
  (void)!::read(wake_.get(), &count, sizeof count);
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(tasks_mutex_);
    tasks.swap(tasks_);
  }
  for (const auto& task : tasks) task();
}

void VsockDevice::start_queue(size_t index, virtio::ActiveQueue queue) {
  post_and_wait([&] {
    if (index > transmit_queue) return;  // the event queue carries only migration's transport reset
    queues_[index] = queue;
    kick_polls_[index] = std::make_unique<Pollable>(Pollable::Kind::kick, index);
    watch(queue.kick, EPOLLIN, kick_polls_[index].get());
    // What the driver queued before we watched announces itself by no kick.
    if (index == transmit_queue) on_transmit();
    fill_receive();
  });
}

void VsockDevice::stop_queue(size_t index) {
  post_and_wait([&] {
    if (!queues_[index].queue) return;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, queues_[index].kick, nullptr);
    queues_[index] = {};
  });
}

void VsockDevice::reset() {
  post_and_wait([&] { end_connections(); });
}

void VsockDevice::guest_has_gone() {
  post([this] {
    guest_gone_ = true;
    handshakes_.clear();
    end_connections();
  });
}

void VsockDevice::connect(uint32_t guest_port, Descriptor socket, Connected connected) {
  const auto shared = std::make_shared<Descriptor>(std::move(socket));
  post([this, guest_port, shared, connected = std::move(connected)] {
    open_host_connection(guest_port, std::move(*shared), connected);
    fill_receive();
  });
}

// -- the thread ----------------------------------------------------------------------------------------------------------

void VsockDevice::watch(int fd, uint32_t events, Pollable* what) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = what;
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

void VsockDevice::run() {
  jail::enter_thread(jail::Role::vsock);
  std::array<epoll_event, 64> events;
  while (!stopping_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    bool tasks = false;
    for (int i = 0; i < count; ++i) {
      auto* const what = static_cast<Pollable*>(events[static_cast<size_t>(i)].data.ptr);
      const uint32_t flags = events[static_cast<size_t>(i)].events;
      switch (what->kind) {
        case Pollable::Kind::wake:
          tasks = true;  // last: a task may free what a later event of this round points at
          break;
        case Pollable::Kind::kick: {
          const virtio::ActiveQueue& active = queues_[what->queue];
          if (!active.queue) break;
          uint64_t kicks;
          (void)!::read(active.kick, &kicks, sizeof kicks);
          if (what->queue == transmit_queue) on_transmit();
          break;
        }
        case Pollable::Kind::listener: accept_all(*static_cast<Listener*>(what)); break;
        case Pollable::Kind::handshake: read_handshake(*static_cast<Handshake*>(what)); break;
        case Pollable::Kind::connection: {
          auto& connection = *static_cast<Connection*>(what);
          if (connection.closed) break;
          if ((flags & EPOLLHUP) != 0) connection.host_gone = true;
          if ((flags & EPOLLOUT) != 0) flush(connection);
          if (!connection.closed && (flags & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
            connection.readable = true;
            make_ready(connection);
          }
          break;
        }
      }
    }
    fill_receive();
    closed_.clear();
    if (tasks) run_tasks();
    closed_.clear();
  }
  while (!connections_.empty()) close_connection(*connections_.begin()->second);
}

void VsockDevice::fault(size_t queue, const std::exception& error) {
  virtio::complain("vsock: queue " + std::to_string(queue) + " stopped: " + error.what());
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, queues_[queue].kick, nullptr);
  queues_[queue].queue.reset();
}

// -- guest to host -------------------------------------------------------------------------------------------------------

void VsockDevice::on_transmit() {
  const auto queue = queues_[transmit_queue].queue;
  if (!queue) return;
  bool interrupt = false;
  size_t taken = 0;
  try {
    do {
      queue->disable_notifications();
      virtio::Chain chain;
      while (control_.size() < max_control && taken < max_round && queue->pop(chain)) {
        ++taken;
        PacketHeader header{};
        if (chain.readable_bytes < sizeof header) throw virtio::QueueFault("vsock packet shorter than its header");
        virtio::gather(chain.readable, std::as_writable_bytes(std::span(&header, 1)));
        if (header.length > chain.readable_bytes - sizeof header) throw virtio::QueueFault("vsock packet longer than its buffer");
        receive_packet(header, window(chain.readable, sizeof header, header.length));
        interrupt |= queue->push(chain.head, 0);
      }
      if (control_.size() >= max_control) break;  // fill_receive comes back here once there is room
      if (taken >= max_round) {                   // nor may a guest that never pauses keep the thread from everything else
        post([this] {
          on_transmit();
          fill_receive();
        });
        break;
      }
    } while (queue->enable_notifications());
  } catch (const virtio::QueueFault& error) {
    fault(transmit_queue, error);
  }
  if (interrupt && queues_[transmit_queue].interrupt) queues_[transmit_queue].interrupt();
}

void VsockDevice::receive_packet(const PacketHeader& header, std::span<const iovec> payload) {
  // §5.10.6.3.1: packets with unknown destination or type are answered by a reset.
  if (header.src_cid != options_.guest_cid || header.dst_cid != host_cid || header.type != type_stream) return send_reset(header);
  const auto found = connections_.find(Key{header.src_port, header.dst_port});
  if (found == connections_.end()) {
    if (header.op == op_request) return on_request(header);
    if (header.op != op_rst) send_reset(header);
    return;
  }
  Connection& connection = *found->second;
  update_credit(connection, header);
  switch (header.op) {
    case op_response: {
      if (!connection.connected) return;
      connection.open = true;
      const Connected connected = std::exchange(connection.connected, nullptr);
      connected(0, connection.key.host_port);
      connection.readable = true;
      watch(connection.socket.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &connection);
      return make_ready(connection);
    }
    case op_rw: return on_data(connection, payload, header.length);
    case op_shutdown: return on_shutdown(connection, header.flags);
    case op_rst: return on_guest_reset(connection);
    case op_credit_update: return;
    case op_credit_request: return send_control(connection, op_credit_update);
    default: send_control(connection, op_rst); return close_connection(connection);
  }
}

void VsockDevice::update_credit(Connection& connection, const PacketHeader& header) {
  connection.peer_buf_alloc = header.buf_alloc;
  connection.peer_fwd_cnt = header.fwd_cnt;
  make_ready(connection);
}

void VsockDevice::on_request(const PacketHeader& header) {
  if (connections_.size() >= max_connections) return send_reset(header);
  try {
    Descriptor socket = os::connect_unix(options_.path + "_" + std::to_string(header.dst_port), SOCK_STREAM | SOCK_NONBLOCK);
    Connection& connection = add_connection(Key{header.src_port, header.dst_port}, std::move(socket), nullptr);
    connection.open = true;
    update_credit(connection, header);
    send_control(connection, op_response);
    watch(connection.socket.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &connection);
  } catch (const std::system_error&) {
    send_reset(header);  // nobody listens on that port of the host
  }
}

void VsockDevice::on_data(Connection& connection, std::span<const iovec> payload, size_t length) {
  if (!connection.open || connection.guest_sent_all || length + connection.buffered() > receive_space) {
    send_control(connection, op_rst);  // data outside its time, or beyond the credit we gave
    return close_connection(connection);
  }
  size_t written = 0;
  if (connection.buffered() == 0 && !payload.empty()) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(payload.data());
    message.msg_iovlen = payload.size();
    const ssize_t result = ::sendmsg(connection.socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0 && errno != EAGAIN && errno != EINTR) {
      send_control(connection, op_rst);  // the host's reader has gone
      return close_connection(connection);
    }
    written = result > 0 ? static_cast<size_t>(result) : 0;
  }
  connection.forwarded += static_cast<uint32_t>(written);
  for (const iovec& rest : window(payload, written, length)) {
    const auto* const bytes = static_cast<const std::byte*>(rest.iov_base);
    connection.buffer.insert(connection.buffer.end(), bytes, bytes + rest.iov_len);
  }
  after_flush(connection);
}

void VsockDevice::flush(Connection& connection) {
  while (connection.buffered() > 0) {
    const ssize_t result =
        ::send(connection.socket.get(), connection.buffer.data() + connection.buffer_start, connection.buffered(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0 && errno == EAGAIN) break;
    if (result < 0) {
      if (!connection.guest_reset) send_control(connection, op_rst);
      return close_connection(connection);
    }
    connection.buffer_start += static_cast<size_t>(result);
    connection.forwarded += static_cast<uint32_t>(result);
  }
  // What has been sent goes once it outweighs what waits: a reader that is always a little behind would else let the buffer grow with
  // the stream.
  if (connection.buffer_start >= connection.buffered()) {
    connection.buffer.erase(connection.buffer.begin(), connection.buffer.begin() + static_cast<ptrdiff_t>(connection.buffer_start));
    connection.buffer_start = 0;
  }
  after_flush(connection);
}

// What follows when bytes have gone to the host: credit for the guest, and the ends that had to wait for the last byte.
void VsockDevice::after_flush(Connection& connection) {
  if (connection.forwarded - connection.announced >= receive_space / 4 && !connection.guest_reset) {
    send_control(connection, op_credit_update);
  }
  if (connection.buffered() > 0) return;
  if (connection.guest_reset) return close_connection(connection);
  if (connection.guest_sent_all && connection.guest_takes_none) {
    send_control(connection, op_rst);  // §5.10.6.5: both directions are done
    return close_connection(connection);
  }
  if (connection.guest_sent_all) ::shutdown(connection.socket.get(), SHUT_WR);
}

void VsockDevice::on_shutdown(Connection& connection, uint32_t flags) {
  if ((flags & shutdown_send) != 0) connection.guest_sent_all = true;
  if ((flags & shutdown_receive) != 0) {
    connection.guest_takes_none = true;
    ::shutdown(connection.socket.get(), SHUT_RD);
  }
  after_flush(connection);
}

void VsockDevice::on_guest_reset(Connection& connection) {
  if (connection.connected) {
    const Connected connected = std::exchange(connection.connected, nullptr);
    connected(ECONNREFUSED, 0);
  }
  close_when_delivered(connection);
}

// -- host to guest -------------------------------------------------------------------------------------------------------

void VsockDevice::make_ready(Connection& connection) {
  if (connection.queued || !connection.readable || !connection.open || connection.guest_takes_none || connection.guest_reset) return;
  connection.queued = true;
  ready_.push_back(connection.key);
}

void VsockDevice::fill_receive() {
  // Room for answers lets packets be taken, which makes answers: again, until the answers are out or the guest has no room for them.
  bool was_blocked = control_.size() >= max_control;
  fill_buffers();
  while (was_blocked && control_.size() < max_control) {
    on_transmit();
    was_blocked = control_.size() >= max_control;
    fill_buffers();
  }
}

void VsockDevice::fill_buffers() {
  const auto queue = queues_[receive_queue].queue;
  if (!queue) return;
  interrupt_receive_ = false;
  try {
    virtio::Chain chain;
    bool more = true;
    while (more && !(control_.empty() && ready_.empty())) {
      queue->disable_notifications();
      while (!(control_.empty() && ready_.empty())) {
        if (!queue->pop(chain)) break;
        if (chain.writable_bytes < sizeof(PacketHeader)) throw virtio::QueueFault("vsock receive buffer shorter than a header");
        if (!fill_one(chain)) queue->unpop();
      }
      // Out of buffers: be told when there are some. Out of work: no need.
      more = !(control_.empty() && ready_.empty()) && queue->enable_notifications();
    }
  } catch (const virtio::QueueFault& error) {
    fault(receive_queue, error);
  }
  if (interrupt_receive_ && queues_[receive_queue].interrupt) queues_[receive_queue].interrupt();
}

// Fills one buffer with a control packet or data; false when there was nothing to say after all.
bool VsockDevice::fill_one(virtio::Chain& chain) {
  if (!control_.empty()) {
    const PacketHeader header = control_.front();
    control_.pop_front();
    put_packet(chain, header, 0);
    return true;
  }
  const Key key = ready_.front();
  ready_.pop_front();
  const auto found = connections_.find(key);
  if (found == connections_.end()) return false;
  found->second->queued = false;
  return send_data(*found->second, chain);
}

bool VsockDevice::send_data(Connection& connection, virtio::Chain& chain) {
  const size_t room = std::min<size_t>(chain.writable_bytes - sizeof(PacketHeader), connection.credit());
  if (connection.host_ended) return false;
  // Without credit it waits for the guest to tell of some, which Linux does by itself as its reader takes what is there. A request for it
  // is answered at once, with the little that has come free or with nothing, and the next would follow: a slow reader's stream would
  // consist of them, and a reader that stands still would keep both sides busy.
  if (room == 0) return false;
  std::vector<iovec> pieces = window(chain.writable, sizeof(PacketHeader), room);
  const ssize_t got = ::readv(connection.socket.get(), pieces.data(), static_cast<int>(pieces.size()));
  if (got < 0 && errno == EINTR) return make_ready(connection), false;
  if (got < 0 && errno == EAGAIN) return connection.readable = false;
  if (got <= 0) {  // end of file, or an error that means the same
    connection.host_ended = true;
    connection.readable = false;
    PacketHeader header = header_for(connection, op_shutdown);
    header.flags = shutdown_send | (connection.host_gone ? shutdown_receive : 0);
    put_packet(chain, header, 0);
    return true;
  }
  PacketHeader header = header_for(connection, op_rw);
  header.length = static_cast<uint32_t>(got);
  connection.sent += static_cast<uint32_t>(got);
  connection.announced = connection.forwarded;
  put_packet(chain, header, static_cast<size_t>(got));
  make_ready(connection);
  return true;
}

void VsockDevice::put_packet(virtio::Chain& chain, const PacketHeader& header, size_t payload) {
  virtio::scatter(std::as_bytes(std::span(&header, 1)), chain.writable);
  interrupt_receive_ |= queues_[receive_queue].queue->push(chain.head, static_cast<uint32_t>(sizeof header + payload));
}

PacketHeader VsockDevice::header_for(const Connection& connection, uint16_t op) const {
  PacketHeader header{};
  header.src_cid = host_cid;
  header.dst_cid = options_.guest_cid;
  header.src_port = connection.key.host_port;
  header.dst_port = connection.key.guest_port;
  header.type = type_stream;
  header.op = op;
  header.buf_alloc = receive_space;
  header.fwd_cnt = connection.forwarded;
  return header;
}

void VsockDevice::send_control(Connection& connection, uint16_t op, uint32_t flags) {
  PacketHeader header = header_for(connection, op);
  header.flags = flags;
  connection.announced = connection.forwarded;
  control_.push_back(header);
}

void VsockDevice::send_reset(const PacketHeader& to) {
  PacketHeader header{};
  header.src_cid = to.dst_cid;
  header.dst_cid = options_.guest_cid;
  header.src_port = to.dst_port;
  header.dst_port = to.src_port;
  header.type = to.type;
  header.op = op_rst;
  control_.push_back(header);
}

// The driver has gone, and what was sent to it. What it sent is delivered, as after a reset of its own.
void VsockDevice::end_connections() {
  std::vector<Connection*> all;
  for (const auto& [key, connection] : connections_) all.push_back(connection.get());
  for (Connection* const connection : all) close_when_delivered(*connection);
  control_.clear();
  ready_.clear();
}

// The guest's end has gone; what came from it may still wait for the host's reader.
void VsockDevice::close_when_delivered(Connection& connection) {
  connection.guest_reset = true;
  if (connection.buffered() == 0) close_connection(connection);
}

void VsockDevice::close_connection(Connection& connection) {
  if (connection.closed) return;
  connection.closed = true;
  if (connection.connected) std::exchange(connection.connected, nullptr)(ECONNRESET, 0);
  connection.socket.reset();  // leaves the epoll by itself
  const auto found = connections_.find(connection.key);
  closed_.push_back(std::move(found->second));
  connections_.erase(found);
}

// -- host's sockets ------------------------------------------------------------------------------------------------------

VsockDevice::Connection& VsockDevice::add_connection(Key key, Descriptor socket, Connected connected) {
  auto connection = std::make_unique<Connection>(key, std::move(socket), std::move(connected));
  Connection& reference = *connection;
  connections_.emplace(key, std::move(connection));
  return reference;
}

uint32_t VsockDevice::free_host_port() {
  // Ports above 2^30 are never listened on, so a guest's own requests cannot meet them.
  return next_host_port_++ | (1u << 30);
}

void VsockDevice::open_host_connection(uint32_t guest_port, Descriptor socket, Connected connected) {
  if (guest_gone_) return connected(ENOTCONN, 0);
  if (connections_.size() >= max_connections) return connected(EMFILE, 0);
  set_nonblocking(socket.get());
  Key key{guest_port, free_host_port()};
  while (connections_.contains(key)) key.host_port = free_host_port();
  send_control(add_connection(key, std::move(socket), std::move(connected)), op_request);
}

void VsockDevice::accept_all(Listener& listener) {
  for (size_t i = 0; i < batch; ++i) {
    Descriptor socket(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    if (listener.guest_port != 0) {
      open_host_connection(listener.guest_port, std::move(socket), [](int, uint32_t) {});
      continue;
    }
    if (guest_gone_ || handshakes_.size() >= max_handshakes) continue;  // dropped: the descriptor closes
    const int fd = socket.get();
    auto handshake = std::make_unique<Handshake>(std::move(socket));
    watch(fd, EPOLLIN, handshake.get());
    handshakes_[fd] = std::move(handshake);
  }
}

void VsockDevice::read_handshake(Handshake& handshake) {
  const int fd = handshake.socket.get();
  auto drop = [&] { handshakes_.erase(fd); };
  // Byte by byte: what follows the line belongs to the stream.
  for (char next = 0; next != '\n';) {
    const ssize_t got = ::read(fd, &next, 1);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || handshake.line.size() > 32) return drop();
    handshake.line.push_back(next);
  }
  unsigned port = 0;
  int used = 0;
  if (std::sscanf(handshake.line.c_str(), "CONNECT %u\n%n", &port, &used) != 1 || static_cast<size_t>(used) != handshake.line.size()) {
    return drop();
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  Descriptor socket = std::move(handshake.socket);
  drop();
  const int raw = socket.get();  // alive while the connection is, which is when the callback runs
  open_host_connection(port, std::move(socket), [raw](int error, uint32_t host_port) {
    if (error != 0) return;  // the caller sees its connection close
    const std::string answer = "OK " + std::to_string(host_port) + "\n";
    (void)!::send(raw, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  });
}

}  // namespace tskata::devices::vsock
