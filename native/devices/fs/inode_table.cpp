// Node ids and handles.
#include "devices/fs/inode_table.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>

namespace tskata::devices::fs {

namespace {

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category()); }

struct statx attributes_of(int fd) {
  struct statx out {};
  os::checked(::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID, &out), "statx");
  return out;
}

MountFacts mount_of(int fd) {
  struct statfs facts {};
  if (::fstatfs(fd, &facts) != 0) return {};
  return {(static_cast<unsigned long>(facts.f_flags) & ST_RDONLY) == 0, facts.f_type == PROC_SUPER_MAGIC, facts.f_type == OVERLAYFS_SUPER_MAGIC};
}

constexpr size_t max_turns = 64;

bool has_no_name(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) != 0 || facts.st_nlink == 0;
}

Way& best(std::vector<Way>& ways) {
  const auto found = std::ranges::find_if(ways, [](const Way& way) { return way.is.writable; });
  return found != ways.end() ? *found : ways.front();
}

uint64_t device_of(const struct statx& attributes) { return makedev(attributes.stx_dev_major, attributes.stx_dev_minor); }

constexpr double nodes_part = 0.5;
constexpr double handles_part = 0.25;

// Of a limit: for what is being made, by more threads than there are.
size_t kept_for_made(size_t limit) { return std::min<size_t>(64, limit / 8); }

Stamp stamp_of(const struct statx& attributes, uint64_t changes) { return {changes, attributes.stx_size, attributes.stx_mtime}; }

bool is_as_then(const Stamp& then, const struct statx& now) {
  return then.size == now.stx_size && then.modified.tv_sec == now.stx_mtime.tv_sec && then.modified.tv_nsec == now.stx_mtime.tv_nsec;
}

// A folder is one node a mount, anything else one however it was found.
NodeFacts::Key key_of(const struct statx& attributes) {
  return {device_of(attributes), attributes.stx_ino, S_ISDIR(attributes.stx_mode) ? attributes.stx_mnt_id : 0};
}

}  // namespace

size_t descriptor_share(size_t most, double part) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return most;
  return std::min(most, static_cast<size_t>(static_cast<double>(limit.rlim_cur) * part));
}

InodeTable::InodeTable(Options options)
    : keeper_(std::move(options.keeper)),
      writeback_(options.writeback),
      limit_(descriptor_share(max_inodes, nodes_part * options.share)),
      kept_for_made_(kept_for_made(limit_)),
      budget_(std::min(options.budget, limit_ - kept_for_made_)) {
  os::Descriptor root = std::move(options.root);
  const struct statx attributes = attributes_of(root.get());
  const uint64_t device = device_of(attributes);
  const NodeFacts facts{root_id, S_IFDIR, device, guest_number(device, attributes.stx_ino), {}};
  root_ =
      std::make_shared<Inode>(facts, Policy::root, Way{attributes.stx_mnt_id, {.writable = true}, std::make_shared<os::Descriptor>(std::move(root))});
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

bool InodeTable::is_scarce() const {
  const std::shared_lock lock(mutex_);
  return by_id_.size() >= max_inodes / 2 || descriptors_ - std::min(descriptors_, turns_.size()) >= limit_ / 2;
}

bool InodeTable::has_room(Origin origin) const {
  const size_t kept = origin == Origin::made ? 0 : kept_for_made_;
  return descriptors_ + kept < limit_ && by_id_.size() + kept < max_inodes;
}

void InodeTable::require_room() {
  const std::unique_lock lock(mutex_);
  make_room();
  if (!has_room(Origin::asked)) fail(ENFILE);
}

InodeRef InodeTable::get(uint64_t id) const {
  const std::shared_lock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) fail(ESTALE);
  return found->second;
}

PathRef InodeTable::path(Inode& inode) {
  {
    const std::shared_lock lock(mutex_);
    inode.used = true;
    if (const Way& way = best(inode.ways); way.path) return way.path;
  }
  const std::unique_lock lock(mutex_);
  return opened(inode, best(inode.ways));
}

PathRef InodeTable::path_beside(Inode& inode, Inode& folder) {
  const std::unique_lock lock(mutex_);
  const uint64_t mount = folder.ways.front().mount;
  const auto found = std::ranges::find(inode.ways, mount, &Way::mount);
  return opened(inode, found != inode.ways.end() ? *found : best(inode.ways));
}

// A folder is one node a mount: its entries are what that mount shows, and the guest's kernel knows a folder by one place alone.
// Anything else is one node however it was found, so that locks, mappings, FIFOs and sockets hold between the containers of a pod. That
// one may be written by the guest's kernel if any of its mounts is writable, which it could by that mount's name, too.
InodeRef InodeTable::remember(os::Descriptor path, const struct statx& attributes, Policy policy, const Inode& folder, Origin origin) {
  const uint64_t device = device_of(attributes);
  const uint64_t mount = attributes.stx_mnt_id;
  const NodeFacts::Key key = key_of(attributes);
  const uint64_t number = guest_number(device, attributes.stx_ino);
  const Way& above = folder.ways.front();  // of a folder: never changes
  const MountFacts is = above.mount == mount ? above.is : mount_of(path.get());
  Way way{mount, is, std::make_shared<os::Descriptor>(std::move(path))};
  const std::unique_lock lock(mutex_);
  make_room();
  if (const auto found = node_at(key, way, attributes); found != by_key_.end()) {
    Inode& known = *found->second;
    if (is_still(known, way) && !changed_by_host(known, way, attributes)) {
      ++known.lookups;
      known.used = true;
      if (policy == Policy::shared) known.policy = policy;
      const bool is_new = std::ranges::find(known.ways, mount, &Way::mount) == known.ways.end();
      if (is_new && known.ways.size() < max_ways && descriptors_ < limit_) {
        known.ways.push_back(std::move(way));
        ++descriptors_;
      }
      return found->second;
    }
    by_key_.erase(found);
  }
  if (!has_room(origin)) fail(ENFILE);
  const NodeFacts facts{next_id_++, static_cast<mode_t>(attributes.stx_mode & S_IFMT), device, number, key};
  const auto inode = std::make_shared<Inode>(facts, policy, std::move(way));
  inode->stamp = stamp_of(attributes, 0);
  by_key_.emplace(key, inode);
  by_id_[inode->id] = inode;
  if (above.mount == mount) {
    if (std::weak_ptr<Inode>& beside = folders_[mount]; beside.expired()) beside = by_id_.at(folder.id);
  }
  opened_one(*inode);
  return inode;
}

InodeRef InodeTable::remember_again(const struct statx& attributes, Policy policy) {
  const uint64_t mount = attributes.stx_mnt_id;
  const std::unique_lock lock(mutex_);
  const auto found = by_key_.find(key_of(attributes));
  if (found == by_key_.end()) return nullptr;
  Inode& known = *found->second;
  if (may_be_twins(known.ways.front().is.overlay, attributes)) return nullptr;
  // Held open, its number is nobody else's.
  if (!known.ways.front().path || std::ranges::find(known.ways, mount, &Way::mount) == known.ways.end()) return nullptr;
  ++known.lookups;
  known.used = true;
  if (policy == Policy::shared) known.policy = policy;
  return found->second;
}

InodeTable::ByKey::iterator InodeTable::node_at(const NodeFacts::Key& key, const Way& way, const struct statx& attributes) {
  const auto [first, end] = by_key_.equal_range(key);
  if (first == end) return by_key_.end();
  if (!may_be_twins(way.is.overlay, attributes)) return first;
  // Of overlayfs nothing is closed.
  const auto same = [&](const ByKey::value_type& known) { return twins_.is_one_inode(known.second->ways.front().path->get(), way.path->get()); };
  const auto found = std::find_if(first, end, same);
  return found != end ? found : by_key_.end();
}

// While a node's descriptor is closed its file may go and another get its number.
bool InodeTable::is_still(Inode& inode, const Way& way) {
  Way& first = inode.ways.front();
  if (first.path) return true;
  if (!keeper_.same(first.number, way.path->get())) return false;
  if (first.mount != way.mount) return static_cast<bool>(opened(inode, first));
  first.path = way.path;
  opened_one(inode);
  return true;
}

// Of a file that the guest's kernel believes its own word about. Two changes of the same moment are taken for the guest's.
bool InodeTable::changed_by_host(Inode& inode, const Way& way, const struct statx& seen) const {
  if (!writeback_ || inode.type != S_IFREG || inode.writers > 0 || is_as_then(inode.stamp, seen)) return false;
  // Looked at between the two counts: what `seen` says may be older than the stamp.
  const uint64_t before = inode.changes;
  const struct statx now = attributes_of(way.path->get());
  const bool guests = inode.changing > 0 || inode.changes != inode.stamp.changes;
  const bool same = is_as_then(inode.stamp, now);
  inode.stamp = stamp_of(now, before);
  return !same && !guests;
}

void InodeTable::stamp(Inode& inode, int fd) const {
  if (!writeback_ || inode.type != S_IFREG) return;
  const uint64_t before = inode.changes;
  const struct statx now = attributes_of(fd);
  const std::unique_lock lock(mutex_);
  inode.stamp = stamp_of(now, before);
}

const PathRef& InodeTable::opened(Inode& inode, Way& way) {
  if (!way.path) {
    make_room();
    way.path = std::make_shared<os::Descriptor>(keeper_.open(way.number));
    opened_one(inode);
  }
  return way.path;
}

void InodeTable::opened_one(Inode& inode) {
  ++descriptors_;
  if (inode.has_turn || !keeper_.may_keep(inode.ways.front().mount)) return;
  inode.turn = turns_.insert(turns_.end(), &inode);
  inode.has_turn = true;
}

void InodeTable::leave_turn(Inode& inode) {
  if (std::exchange(inode.has_turn, false)) turns_.erase(inode.turn);
}

// Closes what has not been used since its last turn, until one more fits the budget. Beyond the budget some more may be open for a while; at the
// limit each has a turn, and a second one after it has lost its mark.
void InodeTable::make_room() {
  const size_t turns = descriptors_ + kept_for_made_ < limit_ ? std::min(turns_.size(), max_turns) : 2 * turns_.size();
  for (size_t left = turns; descriptors_ >= budget_ && left > 0 && !turns_.empty(); --left) {
    Inode& inode = *turns_.front();
    const Closing how = inode.used.exchange(false) ? Closing::later : close(by_id_.at(inode.id));
    if (how == Closing::later) turns_.splice(turns_.end(), turns_, turns_.begin());
    else leave_turn(inode);
  }
}

InodeTable::Closing InodeTable::close(const InodeRef& inode) {
  Way& way = inode->ways.front();
  if (!keeper_.may_keep(way.mount)) return Closing::never;
  // The two tables hold it; an open file or a request under way does, too.
  if (inode->ways.size() > 1 || inode.use_count() > 2 || has_no_name(way.path->get())) return Closing::later;
  if (way.number == 0) {
    const PathRef folder = folder_beside(*inode);
    way.number = keeper_.keep(way.mount, way.path->get(), folder ? folder->get() : -1);
  }
  if (way.number == 0) return Closing::later;
  way.path.reset();
  --descriptors_;
  return Closing::done;
}

// A folder of the node's mount that is open, the node itself where it is one.
PathRef InodeTable::folder_beside(const Inode& inode) const {
  const Way& way = inode.ways.front();
  if (inode.type == S_IFDIR) return way.path;
  const auto found = folders_.find(way.mount);
  const InodeRef folder = found == folders_.end() ? nullptr : found->second.lock();
  return folder ? folder->ways.front().path : nullptr;
}

InodeRef InodeTable::recall(uint64_t id) {
  const std::unique_lock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return nullptr;
  ++found->second->lookups;
  return found->second;
}

InodeRef InodeTable::forget(uint64_t id, uint64_t count) {
  InodeRef last;  // closes its descriptors after the lock
  const std::unique_lock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || id == root_id) return nullptr;
  last = found->second;
  last->lookups -= std::min(last->lookups, count);
  if (last->lookups > 0) return nullptr;
  leave_turn(*last);
  for (const Way& way : last->ways) {
    if (way.path) --descriptors_;
    keeper_.drop(way.number, way.mount);
  }
  if (const auto folder = folders_.find(last->ways.front().mount); folder != folders_.end() && folder->second.lock() == last) folders_.erase(folder);
  const auto [first, end] = by_key_.equal_range(last->key);
  if (const auto named = std::ranges::find(first, end, last, &ByKey::value_type::second); named != end) by_key_.erase(named);
  by_id_.erase(found);
  return last;
}

void InodeTable::clear() {
  const std::unique_lock lock(mutex_);
  turns_.clear();
  folders_.clear();
  keeper_.clear();
  by_id_.clear();
  by_key_.clear();
  descriptors_ = 0;
  by_id_[root_id] = root_;
}

HandleTable::HandleTable(double share) : limit_(descriptor_share(max_handles, handles_part * share)) {}

void HandleTable::require_room() const {
  const std::shared_lock lock(mutex_);
  if (handles_.size() + kept_for_made(limit_) >= limit_) fail(ENFILE);
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

HandleRef HandleTable::remove(uint64_t id) {
  const std::unique_lock lock(mutex_);
  const auto found = handles_.find(id);
  if (found == handles_.end()) fail(EBADF);
  HandleRef last = std::move(found->second);
  handles_.erase(found);
  return last;
}

void HandleTable::clear() {
  const std::unique_lock lock(mutex_);
  handles_.clear();
}

}  // namespace tskata::devices::fs
