// name_to_handle_at and open_by_handle_at for a file server.
#include "keeper/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "keeper/protocol.h"
#include "linux/fd_passing.h"

namespace tskata::keeper {

namespace {

// struct file_handle with room for its bytes.
class Handle {
 public:
  // Of the file that `fd` refers to; throws what the filesystem says, EOPNOTSUPP for one without handles.
  explicit Handle(int fd) {
    raw()->handle_bytes = MAX_HANDLE_SZ;
    os::checked(::name_to_handle_at(fd, "", raw(), &mount_, AT_EMPTY_PATH), "name_to_handle_at");
    bytes_.resize(sizeof(file_handle) + raw()->handle_bytes);
    bytes_.shrink_to_fit();
  }

  int mount() const { return mount_; }
  bool operator==(const Handle& other) const { return bytes_ == other.bytes_; }

  os::Descriptor open(int anchor) { return os::Descriptor(os::checked(::open_by_handle_at(anchor, raw(), O_PATH | O_CLOEXEC), "open_by_handle_at")); }

 private:
  file_handle* raw() { return reinterpret_cast<file_handle*>(bytes_.data()); }

  std::vector<char> bytes_ = std::vector<char>(sizeof(file_handle) + MAX_HANDLE_SZ);
  int mount_ = 0;
};

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category()); }

void require_same_file(int one, int other) {
  struct stat first {
  }, second{};
  if (::fstat(one, &first) != 0 || ::fstat(other, &second) != 0 || first.st_dev != second.st_dev || first.st_ino != second.st_ino) fail(ESTALE);
}

class Keeper {
 public:
  struct Outcome {
    uint32_t number = 0;
    os::Descriptor fd;
  };

  Outcome serve(const Request& request, std::vector<os::Descriptor>& fds) {
    switch (request.call) {
      case Call::anchor: anchors_[request.mount] = std::make_shared<Anchor>(Anchor{Handle(only(fds).get()).mount(), std::move(only(fds))}); return {};
      case Call::keep: return {keep(request.mount, only(fds).get()), {}};
      case Call::open: return {0, open(request.number)};
      case Call::same:
        if (!(Handle(only(fds).get()) == kept(request.number).handle)) fail(ESTALE);
        return {};
      case Call::drop: kept_.erase(request.number); return {};
      case Call::leave: anchors_.erase(request.mount); return {};
      case Call::clear:
        kept_.clear();
        anchors_.clear();
        return {};
    }
    fail(ENOSYS);
  }

 private:
  struct Anchor {
    int mount;  // as the kernel numbers it
    os::Descriptor folder;
  };
  // With the folder it was made by: a handle means nothing, or another file, on another filesystem, whatever number a mount goes by later.
  struct Kept {
    Handle handle;
    std::shared_ptr<const Anchor> anchor;
  };

  static os::Descriptor& only(std::vector<os::Descriptor>& fds) {
    if (fds.size() != 1) fail(EINVAL);
    return fds.front();
  }

  Kept& kept(uint32_t number) {
    const auto found = kept_.find(number);
    if (found == kept_.end()) fail(ENOENT);
    return found->second;
  }

  uint32_t keep(uint64_t mount, int fd) {
    if (kept_.size() >= most_handles) fail(ENOSPC);
    const auto found = anchors_.find(mount);
    if (found == anchors_.end()) fail(ENOENT);
    Handle handle(fd);
    if (handle.mount() != found->second->mount) fail(EXDEV);
    require_same_file(handle.open(found->second->folder.get()).get(), fd);
    while (next_ == 0 || kept_.contains(next_)) ++next_;
    kept_.emplace(next_, Kept{std::move(handle), found->second});
    return next_++;
  }

  os::Descriptor open(uint32_t number) {
    Kept& one = kept(number);
    return one.handle.open(one.anchor->folder.get());
  }

  std::unordered_map<uint64_t, std::shared_ptr<const Anchor>> anchors_;
  std::unordered_map<uint32_t, Kept> kept_;
  uint32_t next_ = 1;
};

bool has_answer(Call call) { return call == Call::anchor || call == Call::keep || call == Call::open || call == Call::same; }

void answer(int socket, const Answer& answer, const os::Descriptor& fd) {
  const std::array<int, 1> fds{fd.get()};
  os::send_packet(socket, std::as_bytes(std::span(&answer, 1)), std::span(fds).first(fd ? 1 : 0));
}

struct Session {
  os::Descriptor socket;
  Keeper keeper;
};

// One packet. False at the session's end: the other side has closed, or does not keep to the protocol.
bool serve_one(Session& session) {
  os::Packet packet = os::receive_packet(session.socket.get());
  Request request{};
  if (packet.bytes.size() != sizeof request) return false;
  std::memcpy(&request, packet.bytes.data(), sizeof request);
  Answer out{};
  Keeper::Outcome outcome;
  try {
    outcome = session.keeper.serve(request, packet.fds);
    out.number = outcome.number;
  } catch (const std::system_error& error) {
    out.error = error.code().value();
  }
  if (has_answer(request.call)) answer(session.socket.get(), out, outcome.fd);
  return true;
}

bool goes_on(Session& session) {
  try {
    return serve_one(session);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "keeper of handles: %s\n", error.what());
    return false;
  }
}

}  // namespace

void keep_handles(std::span<const int> sockets) {
  std::vector<std::unique_ptr<Session>> sessions;
  for (const int socket : sockets) sessions.push_back(std::make_unique<Session>(Session{os::Descriptor(socket), {}}));
  std::vector<pollfd> waits;
  while (!sessions.empty()) {
    waits.clear();
    for (const auto& session : sessions) waits.push_back({session->socket.get(), POLLIN, 0});
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) os::checked(-1, "poll");
    size_t next = 0;
    std::erase_if(sessions, [&](const auto& session) { return waits[next++].revents != 0 && !goes_on(*session); });
  }
}

}  // namespace tskata::keeper
