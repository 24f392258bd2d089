// What the guest knows of the tree: node ids with their lookup counts, each with O_PATH descriptors; and open files and folders.
//
// A guest may know more nodes than a process should hold descriptors. Beyond a budget those of nodes not used lately are closed, by turns
// (second chance), and opened again by the file's handle (keeper/protocol.h). Where there is no keeper, or a filesystem has no handles, as many
// are open as the process may have, and then it is ENFILE. Kept open are: nodes with an open file, and those without a name, which nothing
// else might hold. A guest of ours forgets names that it does not use at an ENFILE, and asks again (protocol.h).
//
// Where the guest writes back (server.h) its kernel believes the size of a file that it knows, and asks no more. A file that the host has changed
// is therefore told as another node, once nobody in the guest has it open for writing: one that is not as the guest's last change has left it. Who
// has the old one open keeps seeing that.
#pragma once
#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "devices/fs/twins.h"
#include "keeper/client.h"
#include "linux/descriptor.h"

namespace tskata::devices::fs {

// How long the guest may believe what it was told, by where in the tree a node stands:
//   /                      skeleton   entries come and go with containers
//   /<container>           skeleton
//   /<container>/rootfs    exclusive  the container's own: the guest may cache
//   /<container>/own       skeleton
//   /<container>/own/name  exclusive  a volume that is the pod's own, in the folder of the pod's first container
//   /<container>/mounts    skeleton
//   /<container>/mounts/n  shared     a volume that the host may change at any time
enum class Policy { root, container, own, mounts, exclusive, shared };

// A node's descriptor, for as long as an operation needs it.
using PathRef = std::shared_ptr<const os::Descriptor>;

struct MountFacts {
  bool writable = false;
  bool proc = false;  // shows processes
  bool overlay = false;
};

// A way to a node: by which mount it was found. A folder has one, anything else one for each mount that shows it.
struct Way {
  uint64_t mount = 0;
  MountFacts is{};
  PathRef path;         // O_PATH; empty while it is closed
  uint32_t number = 0;  // of its handle at the keeper; 0: none yet
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

// A file as it was when there had been so many changes of the guest's.
struct Stamp {
  uint64_t changes = 0;
  uint64_t size = 0;
  statx_timestamp modified{};
};

struct Inode : NodeFacts {
  Inode(NodeFacts facts, Policy first, Way way) : NodeFacts(std::move(facts)), policy(first), ways{std::move(way)} {}

  std::atomic<Policy> policy;         // shared once any way to it is
  std::atomic<bool> used = true;      // since the turn was here last
  std::atomic<bool> watched = false;  // by host_watch.h
  // Of this node's requests: those that change the file or its times, under way and done; open files for writing.
  std::atomic<unsigned> changing = 0;
  std::atomic<uint64_t> changes = 0;
  std::atomic<unsigned> writers = 0;
  // Guarded by the table.
  Stamp stamp{};
  std::vector<Way> ways;
  uint64_t lookups = 1;
  std::list<Inode*>::iterator turn{};
  bool has_turn = false;
};
using InodeRef = std::shared_ptr<Inode>;

// For the life of the object the guest is changing the file.
class Changing {
 public:
  explicit Changing(Inode& inode) : inode_(inode) { ++inode_.changing; }
  ~Changing() {
    ++inode_.changes;  // first: whoever sees it as not under way sees that it was
    --inode_.changing;
  }
  Changing(const Changing&) = delete;
  Changing& operator=(const Changing&) = delete;

 private:
  Inode& inode_;
};

// How a node became known: the guest asked for it, or has made it.
enum class Origin { asked, made };

// Descriptors that the guest may hold of the process's: beyond `part` of the limit it gets ENFILE, and the pod's sockets still find some.
size_t descriptor_share(size_t most, double part);

class InodeTable {
 public:
  static constexpr uint64_t root_id = 1;  // FUSE_ROOT_ID
  static constexpr size_t max_inodes = 1'000'000;
  static constexpr size_t max_ways = 16;
  static constexpr size_t default_budget = 32'768;

  struct Options {
    os::Descriptor root;
    os::Descriptor keeper{};
    size_t budget = default_budget;
    bool writeback = false;
    double share = 1;  // of the process's descriptors
  };

  explicit InodeTable(Options options);

  // Throws ESTALE as std::system_error for an id the guest was never given.
  InodeRef get(uint64_t id) const;
  // A way to the node: one that may be written by, where there is one.
  PathRef path(Inode& inode);
  // Whether a folder is of a filesystem that shows processes (proc(5)).
  static bool shows_processes(const Inode& folder) { return folder.ways.front().is.proc; }  // of a folder: never changes
  // The way by the same mount as `folder`'s, where there is one: a link is made within one mount.
  PathRef path_beside(Inode& inode, Inode& folder);

  // Whether half of the nodes, or of the descriptors that stay open, are taken: what the guest has not asked for itself should not take more.
  bool is_scarce() const;

  // Throws ENFILE where there is no room for what is about to be made. Later that would be too late: it would be there, and asked for again.
  void require_room();

  // Finds or adds the node that `path` refers to and counts one lookup. `folder` is where it was found. Some room is kept for what was made.
  InodeRef remember(os::Descriptor path, const struct statx& attributes, Policy policy, const Inode& folder, Origin origin = Origin::asked);
  // Counts one more lookup of a node that was found once more by the same mount; none where it takes a descriptor to know that it is the same.
  InodeRef remember_again(const struct statx& attributes, Policy policy);
  // Counts one more lookup of a node; none where the guest does not know it.
  InodeRef recall(uint64_t id);
  // The guest has changed the file and is done, for now.
  void stamp(Inode& inode, int fd) const;
  // The node, when this was the last the guest knew of it.
  InodeRef forget(uint64_t id, uint64_t count);
  void clear();
  // Unique number for (device, inode): the device's index in the upper bits, so that the first device's numbers are its own.
  uint64_t guest_number(uint64_t device, uint64_t inode);

 private:
  enum class Closing { done, later, never };
  struct KeyHash {
    // The inode number alone tells nearly all apart; the odd factor spreads numbers that follow each other.
    size_t operator()(const NodeFacts::Key& key) const {
      return (std::get<1>(key) + std::get<0>(key) * 31 + std::get<2>(key) * 131) * 0x9e3779b97f4a7c15;
    }
  };

  bool has_room(Origin origin) const;
  using ByKey = std::unordered_multimap<NodeFacts::Key, InodeRef, KeyHash>;

  ByKey::iterator node_at(const NodeFacts::Key& key, const Way& way, const struct statx& attributes);
  const PathRef& opened(Inode& inode, Way& way);
  bool is_still(Inode& inode, const Way& way);
  bool changed_by_host(Inode& inode, const Way& way, const struct statx& seen) const;
  void opened_one(Inode& inode);
  void make_room();
  Closing close(const InodeRef& inode);
  PathRef folder_beside(const Inode& inode) const;
  void leave_turn(Inode& inode);

  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, InodeRef> by_id_;
  ByKey by_key_;  // several of a key where they are twins (twins.h)
  std::map<uint64_t, uint64_t> device_index_;
  keeper::Client keeper_;
  std::unordered_map<uint64_t, std::weak_ptr<Inode>> folders_;  // by mount: one in which something was found
  const Twins twins_;
  std::list<Inode*> turns_;  // nodes that may be closed
  size_t descriptors_ = 0;
  const bool writeback_;
  const size_t limit_;
  const size_t kept_for_made_;
  const size_t budget_;
  uint64_t next_id_ = root_id + 1;
  InodeRef root_;
};

// An open file or folder of the guest.
struct Handle {
  Handle() = default;
  ~Handle() {
    if (writes) --inode->writers;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  void count_writer() {
    writes = true;
    ++inode->writers;
  }

  os::Descriptor fd;
  os::Descriptor direct;  // the same with O_DIRECT, where the guest opened it so
  InodeRef inode;
  bool writes = false;
  std::mutex directory;  // readdir of one handle is serial
  int64_t offset = 0;
};
using HandleRef = std::shared_ptr<Handle>;

class HandleTable {
 public:
  static constexpr size_t max_handles = 500'000;

  // `share` as the table of nodes has it.
  explicit HandleTable(double share = 1);

  // Throws ENFILE where a file that is about to be made would have no handle.
  void require_room() const;
  uint64_t add(HandleRef handle);
  HandleRef get(uint64_t id) const;  // throws EBADF
  HandleRef remove(uint64_t id);
  void clear();

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, HandleRef> handles_;
  const size_t limit_;
  uint64_t next_ = 1;
};

}  // namespace tskata::devices::fs
