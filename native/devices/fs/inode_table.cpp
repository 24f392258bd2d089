// Node ids and handles.
#include "devices/fs/inode_table.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

namespace tskata::devices::fs {

namespace {

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category()); }

struct statx attributes_of(int fd) {
  struct statx out {};
  os::checked(::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID, &out), "statx");
  return out;
}

uint64_t device_of(const struct statx& attributes) { return makedev(attributes.stx_dev_major, attributes.stx_dev_minor); }

}  // namespace

size_t descriptor_share(size_t most, double part) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return most;
  return std::min(most, static_cast<size_t>(static_cast<double>(limit.rlim_cur) * part));
}

InodeTable::InodeTable(os::Descriptor root) {
  const struct statx attributes = attributes_of(root.get());
  root_ =
      std::make_shared<Inode>(Inode{root_id, std::move(root), S_IFDIR, guest_number(device_of(attributes), attributes.stx_ino), Policy::root, 1, {}});
  by_id_[root_id] = root_;
}

uint64_t InodeTable::guest_number(uint64_t device, uint64_t inode) {
  {
    const std::shared_lock lock(mutex_);
    const auto found = device_index_.find(device);
    if (found != device_index_.end()) return inode ^ (found->second << 48);
  }
  const std::unique_lock lock(mutex_);
  const uint64_t index = device_index_.emplace(device, device_index_.size()).first->second;
  return inode ^ (index << 48);
}

InodeRef InodeTable::get(uint64_t id) const {
  const std::shared_lock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) fail(ESTALE);
  return found->second;
}

InodeRef InodeTable::remember(os::Descriptor path, const struct statx& attributes, Policy policy) {
  const uint64_t device = device_of(attributes);
  // The mount belongs to the key: one file reached through a read-only and a writable mount is two nodes.
  const std::tuple key{device, static_cast<uint64_t>(attributes.stx_ino), static_cast<uint64_t>(attributes.stx_mnt_id)};
  const uint64_t number = guest_number(device, attributes.stx_ino);
  const std::unique_lock lock(mutex_);
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    ++found->second->lookups;
    return found->second;
  }
  if (by_id_.size() >= limit_) fail(ENFILE);
  const auto inode =
      std::make_shared<Inode>(Inode{next_id_++, std::move(path), static_cast<mode_t>(attributes.stx_mode & S_IFMT), number, policy, 1, key});
  by_key_[key] = inode;
  by_id_[inode->id] = inode;
  return inode;
}

void InodeTable::forget(uint64_t id, uint64_t count) {
  InodeRef last;  // closes its descriptor after the lock
  const std::unique_lock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || id == root_id) return;
  last = found->second;
  last->lookups -= std::min(last->lookups, count);
  if (last->lookups > 0) return;
  by_key_.erase(last->key);
  by_id_.erase(found);
}

void InodeTable::clear() {
  const std::unique_lock lock(mutex_);
  by_id_.clear();
  by_key_.clear();
  by_id_[root_id] = root_;
}

uint64_t HandleTable::add(HandleRef handle) {
  const std::unique_lock lock(mutex_);
  if (handles_.size() >= limit_) fail(ENFILE);
  const uint64_t id = next_++;
  handles_[id] = std::move(handle);
  return id;
}

HandleRef HandleTable::get(uint64_t id) const {
  const std::shared_lock lock(mutex_);
  const auto found = handles_.find(id);
  if (found == handles_.end()) fail(EBADF);
  return found->second;
}

void HandleTable::remove(uint64_t id) {
  HandleRef last;
  const std::unique_lock lock(mutex_);
  const auto found = handles_.find(id);
  if (found == handles_.end()) fail(EBADF);
  last = std::move(found->second);
  handles_.erase(found);
}

void HandleTable::clear() {
  const std::unique_lock lock(mutex_);
  handles_.clear();
}

}  // namespace tskata::devices::fs
