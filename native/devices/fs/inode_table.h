// What the guest knows of the tree: node ids with their lookup counts, each with O_PATH descriptors; and open files and folders.
#pragma once
#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "linux/descriptor.h"

namespace tskata::devices::fs {

// How long the guest may believe what it was told, by where in the tree a node stands:
//   /                      skeleton   entries come and go with containers
//   /<container>           skeleton
//   /<container>/rootfs    exclusive  the container's own: the guest may cache
//   /<container>/mounts    skeleton
//   /<container>/mounts/n  shared     a volume that the host may change at any time
enum class Policy { root, container, mounts, exclusive, shared };

// A node's descriptor, for as long as an operation needs it.
using PathRef = std::shared_ptr<const os::Descriptor>;

// A way to a node: by which mount it was found. A folder has one, anything else one for each mount that shows it.
struct Way {
  uint64_t mount = 0;
  bool writable = false;  // the mount is
  PathRef path;           // O_PATH
};

// What of a node never changes.
struct NodeFacts {
  using Key = std::tuple<uint64_t, uint64_t, uint64_t>;

  uint64_t id;
  mode_t type;      // S_IFMT part
  uint64_t device;  // the host's
  uint64_t number;  // inode number as the guest sees it: unique over the mounts of the tree
  Key key;
};

struct Inode : NodeFacts {
  Inode(NodeFacts facts, Policy first, Way way) : NodeFacts(std::move(facts)), policy(first), ways{std::move(way)} {}

  std::atomic<Policy> policy;  // shared once any way to it is
  // Guarded by the table.
  std::vector<Way> ways;
  uint64_t lookups = 1;
};
using InodeRef = std::shared_ptr<Inode>;

// Descriptors that the guest may hold of the process's: beyond `part` of the limit it gets ENFILE, and the pod's sockets still find some.
size_t descriptor_share(size_t most, double part);

class InodeTable {
 public:
  static constexpr uint64_t root_id = 1;  // FUSE_ROOT_ID
  static constexpr size_t max_inodes = 1'000'000;
  static constexpr size_t max_ways = 16;

  explicit InodeTable(os::Descriptor root);

  // Throws ESTALE as std::system_error for an id the guest was never given.
  InodeRef get(uint64_t id) const;
  // A way to the node: one that may be written by, where there is one.
  PathRef path(const Inode& inode) const;
  // The way by the same mount as `folder`'s, where there is one: a link is made within one mount.
  PathRef path_beside(const Inode& inode, const Inode& folder) const;

  // Finds or adds the node that `path` refers to and counts one lookup. `folder` is where it was found.
  InodeRef remember(os::Descriptor path, const struct statx& attributes, Policy policy, const Inode& folder);
  void forget(uint64_t id, uint64_t count);
  void clear();
  // Unique number for (device, inode): the device's index in the upper bits, so that the first device's numbers are its own.
  uint64_t guest_number(uint64_t device, uint64_t inode);

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, InodeRef> by_id_;
  std::map<NodeFacts::Key, InodeRef> by_key_;
  std::map<uint64_t, uint64_t> device_index_;
  size_t descriptors_ = 0;
  const size_t limit_ = descriptor_share(max_inodes, 0.5);
  uint64_t next_id_ = root_id + 1;
  InodeRef root_;
};

// An open file or folder of the guest.
struct Handle {
  os::Descriptor fd;
  os::Descriptor direct;  // the same with O_DIRECT, where the guest opened it so
  InodeRef inode;
  std::mutex directory;  // readdir of one handle is serial
  int64_t offset = 0;
};
using HandleRef = std::shared_ptr<Handle>;

class HandleTable {
 public:
  static constexpr size_t max_handles = 500'000;

  uint64_t add(HandleRef handle);
  HandleRef get(uint64_t id) const;  // throws EBADF
  void remove(uint64_t id);
  void clear();

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, HandleRef> handles_;
  const size_t limit_ = descriptor_share(max_handles, 0.25);
  uint64_t next_ = 1;
};

}  // namespace tskata::devices::fs
