// Folders: entries are read from the host's own directory stream, whose offsets are the guest's.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

#include "devices/fs/protocol.h"
#include "devices/fs/server.h"

namespace tskata::devices::fs {

namespace {

constexpr size_t least_block = 1024;  // an entry has 280 bytes at most

struct HostEntry {  // linux_dirent64
  uint64_t number;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

// A reply grows entry by entry up to the room the guest gave.
class EntryBuffer {
 public:
  explicit EntryBuffer(size_t limit) : limit_(limit) { bytes_.reserve(limit); }

  size_t limit() const { return limit_; }
  bool has_room(size_t fixed, size_t name) const { return bytes_.size() + padded(fixed + name) <= limit_; }

  void add(std::span<const std::byte> fixed, std::string_view name) {
    bytes_.insert(bytes_.end(), fixed.begin(), fixed.end());
    const auto text = std::as_bytes(std::span(name));
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    bytes_.resize(padded(bytes_.size()));
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  static size_t padded(size_t size) { return (size + 7) & ~size_t{7}; }  // FUSE_DIRENT_ALIGN

  size_t limit_;
  std::vector<std::byte> bytes_;
};

}  // namespace

size_t Server::opendir(Request& request) {
  const auto in = request.take<fuse_open_in>();
  InodeRef inode = inodes_.get(request.header().nodeid);
  os::Descriptor fd = reopen(*inode, O_RDONLY | O_DIRECTORY | static_cast<int>(in.flags & O_NOATIME));
  return request.reply(open_handle(std::move(fd), 0, std::move(inode)));
}

size_t Server::readdir(Request& request) { return read_directory(request, false); }
size_t Server::readdirplus(Request& request) { return read_directory(request, true); }

// Nobody in the guest reads the folder, so its time of access stays.
HandleRef Server::open_for_lookups(uint64_t node) {
  auto handle = std::make_shared<Handle>();
  handle->inode = inodes_.get(node);
  handle->fd = reopen(*handle->inode, O_RDONLY | O_DIRECTORY | O_NOATIME);
  return handle;
}

size_t Server::read_directory(Request& request, bool plus) {
  const auto in = request.take<fuse_read_in>();
  const bool for_lookups = plus && in.fh == no_handle;
  const HandleRef handle = for_lookups ? open_for_lookups(request.header().nodeid) : handles_.get(in.fh);
  const std::lock_guard lock(handle->directory);
  const int fd = handle->fd.get();
  EntryBuffer out(std::min<size_t>({in.size, request.room(), size_t{1} << 20}));
  const size_t fixed = plus ? sizeof(fuse_direntplus) : sizeof(fuse_dirent);
  const auto wanted = static_cast<int64_t>(in.offset);
  if (handle->offset != wanted) {
    if (::lseek(fd, wanted, SEEK_SET) < 0) throw std::system_error(errno, std::generic_category(), "lseek");
    handle->offset = wanted;
  }
  // What is read and has no room is read again for the next request: so no more is read than will fit, about.
  alignas(HostEntry) std::array<char, 32768> host;
  const size_t per_entry = plus ? sizeof(fuse_direntplus) / sizeof(HostEntry) : 1;
  const size_t block = std::clamp(out.limit() / per_entry, least_block, host.size());
  bool full = false;
  bool stands_after = true;  // the last entry told
  while (!full) {
    const long got = ::syscall(SYS_getdents64, fd, host.data(), block);
    if (got < 0) throw std::system_error(errno, std::generic_category(), "getdents64");
    if (got == 0) break;
    for (long at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const HostEntry*>(host.data() + at);
      at += entry->length;
      const std::string_view name(entry->name);
      if (!out.has_room(fixed, name.size()) || (for_lookups && inodes_.is_scarce())) {
        full = true;
        stands_after = false;
        break;
      }
      fuse_direntplus record{};
      const bool dots = name == "." || name == "..";
      if (plus && !dots) {
        try {
          const auto found = find_name(*handle->inode, std::string(name));
          if (!found) {  // removed since it was listed
            handle->offset = entry->offset;
            continue;
          }
          record.entry_out = *found;
        } catch (const std::system_error&) {
          // Out of descriptors or the like: an entry without a node id is told all the same, and looked up by name when it is needed.
        }
      }
      record.dirent.ino = record.entry_out.nodeid != 0 ? record.entry_out.attr.ino : inodes_.guest_number(handle->inode->device, entry->number);
      record.dirent.off = static_cast<uint64_t>(entry->offset);
      record.dirent.namelen = static_cast<uint32_t>(name.size());
      record.dirent.type = entry->type;
      const auto* const start = reinterpret_cast<const std::byte*>(&record) + (plus ? 0 : offsetof(fuse_direntplus, dirent));
      out.add({start, fixed}, name);
      handle->offset = entry->offset;
    }
  }
  // The stream stands after the last block read.
  if (!stands_after && ::lseek(fd, handle->offset, SEEK_SET) < 0) throw std::system_error(errno, std::generic_category(), "lseek");
  return request.reply(out.bytes());
}

}  // namespace tskata::devices::fs
