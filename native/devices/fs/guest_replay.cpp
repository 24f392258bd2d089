// Folders by their node: whatever they are called by now.
#include "devices/fs/guest_replay.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

#include "devices/fs/replays.h"

namespace tskata::devices::fs {

namespace {

constexpr int fuse_handle_type = 0x81;  // FILEID_INO64_GEN: node id and generation, each half a word

// The file of a node that the guest's kernel has in its cache; a watched one always is.
os::Descriptor open_node(int root, uint64_t node, int flags) {
  constexpr size_t words = 3;
  alignas(file_handle) std::array<char, sizeof(file_handle) + words * sizeof(uint32_t)> room{};
  auto& handle = *reinterpret_cast<file_handle*>(room.data());
  handle.handle_bytes = words * sizeof(uint32_t);
  handle.handle_type = fuse_handle_type;
  const std::array<uint32_t, words> id{static_cast<uint32_t>(node >> 32), static_cast<uint32_t>(node), 0};
  std::memcpy(handle.f_handle, id.data(), sizeof id);
  return os::Descriptor(::open_by_handle_at(root, &handle, flags | O_CLOEXEC));
}

// A folder. Its name is forgotten as soon as nobody uses it (its validity is zero), the node is not as long as it is watched.
os::Descriptor open_folder(int root, uint64_t node) {
  os::Descriptor found = open_node(root, node, O_PATH);
  if (found) return found;
  const std::string name = std::string(node_name) + std::to_string(node);
  return os::Descriptor(::openat(root, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// A change of the time of change alone is a change of data to inotify, with the time of access it is one of attributes.
bool set_times(int folder, const Change& change, bool both) {
  const std::array<timespec, 2> times{
      {{0, both ? UTIME_NOW : UTIME_OMIT}, {static_cast<time_t>(replayed_time), 0}},
  };
  const int flags = change.name.empty() ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
  return ::utimensat(folder, change.name.c_str(), times.data(), flags) == 0;
}

bool end_writing(int root, int folder, const Change& change) {
  struct stat facts {};
  const int flags = AT_SYMLINK_NOFOLLOW | (change.name.empty() ? AT_EMPTY_PATH : 0);
  if (::fstatat(folder, change.name.c_str(), &facts, flags) != 0 || !S_ISREG(facts.st_mode)) return false;
  if (change.name.empty()) return static_cast<bool>(open_node(root, change.folder, O_WRONLY));
  return static_cast<bool>(os::Descriptor(::openat(folder, change.name.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC)));
}

// Outside of what is watched is the root of the tree, under a name that the server knows.
bool rename(int root, const Change& change) {
  const auto open = [root](uint64_t node) { return node == Change::outside ? os::Descriptor() : open_folder(root, node); };
  const os::Descriptor from = open(change.folder);
  const os::Descriptor to = open(change.new_folder);
  if ((!from && change.folder != Change::outside) || (!to && change.new_folder != Change::outside)) return false;
  const char* const name = from ? change.name.c_str() : moved_name;
  const char* const new_name = to ? change.new_name.c_str() : moved_name;
  return ::renameat(from ? from.get() : root, name, to ? to.get() : root, new_name) == 0;
}

bool replay_one(int root, const Change& change) {
  if (change.kind == ChangeKind::rename) return rename(root, change);
  const os::Descriptor folder = open_folder(root, change.folder);
  if (!folder) return false;
  const char* const name = change.name.c_str();
  switch (change.kind) {
    case ChangeKind::create: return (change.directory ? ::mkdirat(folder.get(), name, 0700) : ::mknodat(folder.get(), name, S_IFREG | 0600, 0)) == 0;
    case ChangeKind::remove: return ::unlinkat(folder.get(), name, change.directory ? AT_REMOVEDIR : 0) == 0;
    case ChangeKind::modify: return set_times(folder.get(), change, false);
    case ChangeKind::attributes: return set_times(folder.get(), change, true);
    case ChangeKind::close_write: return end_writing(root, folder.get(), change);
    case ChangeKind::rename: break;
  }
  return false;
}

}  // namespace

unsigned replay(int root, const std::vector<Change>& changes) {
  unsigned left = 0;
  for (const Change& change : changes) left += replay_one(root, change) ? 0 : 1;
  return left;
}

}  // namespace tskata::devices::fs
