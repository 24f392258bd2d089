// What is announced, and whom the guest knows by which name.
#include "devices/fs/replays.h"

#include <sys/stat.h>

#include <algorithm>

#include "devices/fs/inode_table.h"

namespace tskata::devices::fs {

fuse_attr_out Replays::ghost_attributes(uint64_t node) {
  fuse_attr_out out{};
  out.attr.ino = node;
  out.attr.nlink = 1;
  out.attr.blksize = 4096;
  out.attr.mode = (node & directory_bit) != 0 ? S_IFDIR | 0700 : S_IFREG | 0600;
  return out;
}

fuse_entry_out Replays::ghost(bool directory) {
  fuse_entry_out out{};
  {
    const std::lock_guard lock(mutex_);
    out.nodeid = ghost_bit | (directory ? directory_bit : 0) | ++last_ghost_;
  }
  out.attr = ghost_attributes(out.nodeid).attr;
  return out;
}

void Replays::announce(std::vector<Change> changes) {
  const std::lock_guard lock(mutex_);
  announced_ = std::move(changes);
  next_ = 0;
  for (Change& change : announced_) {
    if (change.kind != ChangeKind::rename) continue;
    if (change.folder == Change::outside) change.folder = InodeTable::root_id, change.name = moved_name;
    if (change.new_folder == Change::outside) change.new_folder = InodeTable::root_id, change.new_name = moved_name;
  }
}

void Replays::clear() {
  const std::lock_guard lock(mutex_);
  announced_.clear();
  next_ = 0;
  nodes_.clear();
  names_.clear();
}

std::optional<Change> Replays::looked_up(uint64_t folder, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(announced_.begin() + static_cast<ptrdiff_t>(next_), announced_.end(), [&](const Change& change) {
    const bool is_new = change.kind == ChangeKind::rename && change.new_folder == folder && change.new_name == name;
    return is_new || (change.folder == folder && change.name == name);
  });
  if (found == announced_.end()) return std::nullopt;
  next_ = static_cast<size_t>(found - announced_.begin());
  return *found;
}

void Replays::answered(uint64_t node) {
  const std::lock_guard lock(mutex_);
  answered_ = node;
}

bool Replays::take(ChangeKind kind, uint64_t folder, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(announced_.begin() + static_cast<ptrdiff_t>(next_), announced_.end(),
                                  [&](const Change& change) { return change.kind == kind && change.folder == folder && change.name == name; });
  if (found == announced_.end()) return false;
  next_ = static_cast<size_t>(found - announced_.begin()) + 1;
  if (kind == ChangeKind::create) return true;
  const std::string old = key(folder, name);
  const auto known = nodes_.find(old);
  const uint64_t node = known != nodes_.end() ? known->second : 0;
  drop_name(old);
  if (kind == ChangeKind::rename && node != 0 && found->new_folder != InodeTable::root_id) set_name(key(found->new_folder, found->new_name), node);
  return true;
}

bool Replays::opens(uint64_t node) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(announced_.begin() + static_cast<ptrdiff_t>(next_), announced_.end(), [&](const Change& change) {
    return change.kind == ChangeKind::close_write && (change.name.empty() ? change.folder == node : answered_ == node);
  });
  if (found == announced_.end()) return false;
  next_ = static_cast<size_t>(found - announced_.begin()) + 1;
  return true;
}

void Replays::note(uint64_t folder, const std::string& name, uint64_t node) {
  const std::lock_guard lock(mutex_);
  set_name(key(folder, name), node);
}

void Replays::set_name(const std::string& name, uint64_t node) {
  drop_name(name);
  if (const auto known = names_.find(node); known != names_.end()) nodes_.erase(known->second);
  nodes_[name] = node;
  names_[node] = name;
}

void Replays::drop_name(const std::string& name) {
  const auto known = nodes_.find(name);
  if (known == nodes_.end()) return;
  names_.erase(known->second);
  nodes_.erase(known);
}

std::optional<uint64_t> Replays::noted(uint64_t folder, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto known = nodes_.find(key(folder, name));
  return known == nodes_.end() ? std::nullopt : std::optional(known->second);
}

void Replays::forget(uint64_t node) {
  const std::lock_guard lock(mutex_);
  if (const auto known = names_.find(node); known != names_.end()) drop_name(std::string(known->second));
}

}  // namespace tskata::devices::fs
