// Requests by which the guest's agent replays a change of the host's: answered, not done.
#include <algorithm>
#include <charconv>
#include <system_error>

#include "devices/fs/protocol.h"
#include "devices/fs/server.h"

namespace tskata::devices::fs {

namespace {

constexpr uint32_t agent_pid = 1;

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category()); }

}  // namespace

void Server::next_changes(size_t most, HostWatch::Report report) {
  if (watch_)
    watch_->next(most, [this, report = std::move(report)](std::vector<Change> changes) {
      replays_.announce(changes);
      report(std::move(changes));
    });
}

bool Server::of_agent(const Request& request) const { return request.header().pid == agent_pid; }

// As it was before the change: a name that is to come is not there, one that is to go is.
fuse_entry_out Server::replayed_lookup(const Change& change, uint64_t folder, const std::string& name) {
  if (change.kind == ChangeKind::create) fail(ENOENT);
  if (change.kind == ChangeKind::rename && change.new_folder == folder && change.new_name == name) fail(ENOENT);
  fuse_entry_out out = replayed_entry(folder, name, change.directory);
  // The guest's kernel takes a name away itself; without one it would tell of the file's end before its time.
  if (change.kind != ChangeKind::remove) out.attr.nlink = std::max(out.attr.nlink, 1u);
  else if (!Replays::is_ghost(out.nodeid)) ++out.attr.nlink;
  // What was never looked up is what the name means now, but not when it is to go: that may be another file.
  const bool stays = change.kind != ChangeKind::remove && change.kind != ChangeKind::rename;
  if (stays && Replays::is_ghost(out.nodeid)) {
    try {
      out = lookup_name(*inodes_.get(folder), name);
    } catch (const std::system_error&) {
    }
  }
  replays_.answered(out.nodeid);
  return out;
}

// The node that the guest knows by the name, or a ghost.
fuse_entry_out Server::replayed_entry(uint64_t folder, const std::string& name, bool directory) {
  const auto node = replays_.noted(folder, name);
  const InodeRef inode = node ? inodes_.recall(*node) : nullptr;
  if (!inode) return replays_.ghost(directory);
  try {
    return entry_again(inode);
  } catch (const std::system_error&) {  // its file is no more
    return replays_.ghost(directory);
  }
}

// A folder that is watched, by its number: nothing that the guest does not know.
fuse_entry_out Server::lookup_node(const std::string& number) {
  uint64_t node = 0;
  if (std::from_chars(number.data(), number.data() + number.size(), node).ptr != number.data() + number.size()) fail(ENOENT);
  const InodeRef inode = inodes_.get(node);
  if (!inode->watched || inode->type != S_IFDIR || !inodes_.recall(node)) fail(ENOENT);
  return entry_again(inode);
}

// Its lookup has been counted.
fuse_entry_out Server::entry_again(const InodeRef& inode) {
  try {
    fuse_entry_out out{};
    out.nodeid = inode->id;
    out.attr = attributes_reply(*inode, inodes_.path(*inode)->get()).attr;
    return out;
  } catch (...) {
    forget_node(inode->id, 1);  // the guest is told of no entry
    throw;
  }
}

// The guest's kernel insists on the type that it asked for, and the agent does not know it.
size_t Server::replayed_create(Request& request, Inode& folder, const std::string& name, bool directory) {
  try {
    const fuse_entry_out out = lookup_name(folder, name);
    if ((out.attr.mode & S_IFMT) == (directory ? S_IFDIR : S_IFREG)) return request.reply(out);
    forget_node(out.nodeid, 1);
  } catch (const std::system_error&) {  // gone again
  }
  return request.reply(replays_.ghost(directory));
}

// Told as of a file that has not changed: Linux would take these attributes for the last ones, whatever it has been told since. A kernel that does
// not know that flag takes them without a look at its cached data, and drops that only when a later reply has another time of change: so none has
// this one's.
size_t Server::replayed_setattr(Request& request) {
  const uint64_t node = request.header().nodeid;
  if (Replays::is_ghost(node)) return request.reply(Replays::ghost_attributes(node));
  const InodeRef inode = inodes_.get(node);
  fuse_attr_out out = attributes_reply(*inode, inodes_.path(*inode)->get());
  out.attr.nlink = std::max(out.attr.nlink, 1u);
  out.attr.mtimensec ^= 1;
  out.attr.flags |= attribute_unchanged;
  return request.reply(out);
}

}  // namespace tskata::devices::fs
