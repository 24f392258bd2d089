// Requests to the keeper. A keeper that is gone is none: what is open stays open.
#include "keeper/client.h"

#include <fcntl.h>

#include <array>
#include <cstring>

#include "linux/proc_path.h"

namespace tskata::keeper {

namespace {

// The filesystem has no handles that can be opened again, or the keeper has not the right: so it is with all of a mount.
bool is_for_good(int error) { return error == EOPNOTSUPP || error == EPERM || error == EOVERFLOW || error == EXDEV; }

}  // namespace

bool Client::may_keep(uint64_t mount) const {
  const auto found = mounts_.find(mount);
  return present() && (found == mounts_.end() || !found->second.refused);
}

uint32_t Client::keep(uint64_t mount, int path, int folder) {
  if (!may_keep(mount)) return 0;
  Mount& state = mounts_[mount];
  if (state.kept == 0 && (folder < 0 || !anchor(mount, folder))) return 0;
  try {
    const os::Packet answer = ask({Call::keep, 0, mount}, path);
    Answer out{};
    std::memcpy(&out, answer.bytes.data(), sizeof out);
    ++state.kept;
    return out.number;
  } catch (const std::system_error& error) {
    state.refused = is_for_good(error.code().value());
    if (state.kept == 0) tell({Call::leave, 0, mount});
    return 0;
  }
}

os::Descriptor Client::open(uint32_t number) {
  os::Packet answer = ask({Call::open, number, 0}, -1);
  if (answer.fds.size() != 1) throw std::system_error(EIO, std::generic_category(), "keeper");
  return std::move(answer.fds.front());
}

bool Client::same(uint32_t number, int path) {
  try {
    ask({Call::same, number, 0}, path);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

void Client::drop(uint32_t number, uint64_t mount) {
  if (number == 0) return;
  tell({Call::drop, number, 0});
  // Held any longer the folder would keep the host from unmounting the filesystem once the container is gone.
  const auto found = mounts_.find(mount);
  if (found != mounts_.end() && found->second.kept > 0 && --found->second.kept == 0) leave(mount);
}

void Client::leave(uint64_t mount) {
  mounts_.erase(mount);
  tell({Call::leave, 0, mount});
}

void Client::clear() {
  mounts_.clear();
  tell({Call::clear, 0, 0});
}

// A folder that is open, not only named: older kernels take no O_PATH descriptor for a mount.
bool Client::anchor(uint64_t mount, int folder) {
  const os::Descriptor opened(::open(os::proc_path(folder).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened) return false;
  try {
    ask({Call::anchor, 0, mount}, opened.get());
    return true;
  } catch (const std::system_error& error) {
    mounts_[mount].refused = is_for_good(error.code().value());
    return false;
  }
}

os::Packet Client::ask(const Request& request, int fd) {
  if (!present()) throw std::system_error(ESTALE, std::generic_category(), "keeper");
  const std::array<int, 1> fds{fd};
  os::Packet answer;
  try {
    os::send_packet(socket_.get(), std::as_bytes(std::span(&request, 1)), std::span(fds).first(fd >= 0 ? 1 : 0));
    answer = os::receive_packet(socket_.get());
  } catch (const std::system_error& error) {
    if (error.code().value() != EMSGSIZE) socket_.reset();  // that one: no room for the descriptor in it
    throw;
  }
  Answer out{};
  if (answer.bytes.size() != sizeof out) {
    socket_.reset();
    throw std::system_error(ESTALE, std::generic_category(), "keeper");
  }
  std::memcpy(&out, answer.bytes.data(), sizeof out);
  if (out.error != 0) throw std::system_error(out.error, std::generic_category(), "keeper");
  return answer;
}

void Client::tell(const Request& request) {
  if (!present()) return;
  try {
    os::send_packet(socket_.get(), std::as_bytes(std::span(&request, 1)), {});
  } catch (const std::system_error&) {
    socket_.reset();
  }
}

}  // namespace tskata::keeper
