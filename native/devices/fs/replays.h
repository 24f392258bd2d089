// Replays of the host's changes in the guest.
//
// Linux's FUSE has no way to tell the guest's kernel of an event. So the guest's agent does what the host has done, in the same order: the guest's
// kernel raises the event once the server has answered, and the server answers what it has announced without doing it. What the host has done
// since does not matter: a name that is gone by now is shown once more to the agent that is to remove it, one that is there already is hidden from
// the one that is to make it. Where there is no file any more a ghost stands for it, a node number without a node.
//
// Only requests of process 1 of the guest, which the agent is, are compared. That is the guest's word: a guest that lies is answered without an
// effect.
#pragma once
#include <linux/fuse.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "devices/fs/host_watch.h"

namespace tskata::devices::fs {

// The time of change that a replayed change of attributes or data sets, in seconds: no filesystem has it.
constexpr uint64_t replayed_time = uint64_t{1} << 61;
// The open file of a replayed end of writing: none.
constexpr uint64_t replayed_handle = uint64_t{1} << 63;
// The name outside of every watched folder that replayed renames come from and go to: in the root of the tree.
constexpr const char* moved_name = ".moved";

// Before a number, in the root: a watched folder by its node, for the agent. The guest's kernel finds one by handle only where it has a name for it
// still.
constexpr std::string_view node_name = ".node-";

class Replays {
 public:
  static bool is_ghost(uint64_t node) { return (node & ghost_bit) != 0; }
  static fuse_attr_out ghost_attributes(uint64_t node);
  fuse_entry_out ghost(bool directory);

  // What the agent is asked next; what is left of the last time is void.
  void announce(std::vector<Change> changes);
  void clear();

  // The announced change that a lookup of the name belongs to.
  std::optional<Change> looked_up(uint64_t folder, const std::string& name);
  // Which node the lookup was answered with.
  void answered(uint64_t node);
  // Whether the change is announced; the ones before it are done with then.
  bool take(ChangeKind kind, uint64_t folder, const std::string& name);
  bool opens(uint64_t node);

  // The nodes that the guest knows by names of watched folders.
  void note(uint64_t folder, const std::string& name, uint64_t node);
  std::optional<uint64_t> noted(uint64_t folder, const std::string& name) const;
  void forget(uint64_t node);

 private:
  static constexpr uint64_t ghost_bit = uint64_t{1} << 63;
  static constexpr uint64_t directory_bit = uint64_t{1} << 62;

  static std::string key(uint64_t folder, const std::string& name) { return std::to_string(folder) + '/' + name; }
  void set_name(const std::string& name, uint64_t node);
  void drop_name(const std::string& name);

  mutable std::mutex mutex_;
  std::vector<Change> announced_;
  size_t next_ = 0;
  uint64_t answered_ = 0;
  uint64_t last_ghost_ = 0;
  std::unordered_map<std::string, uint64_t> nodes_;
  std::unordered_map<uint64_t, std::string> names_;  // the last a node was found by
};

}  // namespace tskata::devices::fs
