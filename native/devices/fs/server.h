// The FUSE server: requests of the guest's kernel on the pod's shared tree.
//
// No path of the guest's is ever resolved: every operation is one component below a descriptor, opened with openat2
// (RESOLVE_BENEATH, no symlinks). Files are re-opened through /proc/self/fd, and only regular files and folders: a FIFO, socket or
// device of the tree is the guest kernel's own affair.
//
// Rights: the guest's kernel checks permissions (default_permissions); the server acts with all rights and gives what it creates the
// caller's uid and gid by setfsuid/setfsgid, so that quota, set-gid folders and default ACLs work as on the host.
//
// Locks stay in the guest's kernel (no FUSE_POSIX_LOCKS): one VM is all the users a pod's tree has. A file that several containers see
// is one node (inode_table.h), so that they hold between these.
//
// With `writeback` (FUSE_WRITEBACK_CACHE) the guest's kernel keeps what is written until a file is closed or synced, or for a while, and then
// believes its own sizes and times: for a tree whose files are the guest's alone. It reads what it writes in part by whichever open file of the inode
// it likes, and writes by any: so every file that is open for writing is open for reading, too. A hole's place is told (LSEEK) to a guest alone that
// says it writes back before it asks (protocol.h): the server does not know of what was written into it.
#pragma once
#include <sys/stat.h>

#include <atomic>
#include <optional>
#include <string>

#include "devices/fs/host_watch.h"
#include "devices/fs/inode_table.h"
#include "devices/fs/replays.h"
#include "devices/fs/request.h"
#include "linux/proc_path.h"

namespace tskata::devices::fs {

struct ServerOptions {
  std::string root;
  os::Descriptor keeper{};  // see inode_table.h; none where it is empty
  size_t descriptor_budget = InodeTable::default_budget;
  bool writeback = false;
  double share = 1;  // of what this process's file servers may hold
};

class Server {
 public:
  explicit Server(ServerOptions options);

  // Prepares the calling thread for serving: an umask of its own, and capabilities that survive setfsuid.
  static void prepare_thread();

  // Serves one request; returns how many bytes of the writable part were filled. Thread-safe. Never throws.
  size_t serve(std::span<const iovec> readable, std::span<const iovec> writable);

  // The host's next changes to what the guest knows of volumes, once there are some. The guest's agent is asked to replay them, and what it does for
  // that is answered without an effect (replays.h). Never, where the guest writes back: such a tree has no volumes but the
  // pod's own.
  void next_changes(size_t most, HostWatch::Report report);

  // The guest is gone or starts anew.
  void reset();

 private:
  using Operation = size_t (Server::*)(Request&);
  static Operation operation(uint32_t opcode);

  // session
  size_t init(Request& request);
  size_t destroy(Request& request);
  size_t statfs(Request& request);
  size_t syncfs(Request& request);
  // nodes
  size_t lookup(Request& request);
  size_t forget(Request& request);
  size_t batch_forget(Request& request);
  size_t getattr(Request& request);
  size_t statx(Request& request);
  size_t setattr(Request& request);
  size_t readlink(Request& request);
  size_t symlink(Request& request);
  size_t mknod(Request& request);
  size_t mkdir(Request& request);
  size_t unlink(Request& request);
  size_t rmdir(Request& request);
  size_t rename(Request& request);
  size_t rename2(Request& request);
  size_t link(Request& request);
  // files
  size_t open(Request& request);
  size_t create(Request& request);
  size_t tmpfile(Request& request);
  size_t read(Request& request);
  size_t write(Request& request);
  size_t release(Request& request);
  size_t fsync(Request& request);
  size_t fallocate(Request& request);
  size_t lseek(Request& request);
  size_t copy_file_range(Request& request);
  // folders
  size_t opendir(Request& request);
  size_t readdir(Request& request);
  size_t readdirplus(Request& request);
  // extended attributes
  size_t setxattr(Request& request);
  size_t getxattr(Request& request);
  size_t listxattr(Request& request);
  size_t removexattr(Request& request);

  // replays
  bool of_agent(const Request& request) const;
  fuse_entry_out lookup_node(const std::string& number);
  fuse_entry_out entry_again(const InodeRef& inode);
  fuse_entry_out replayed_lookup(const Change& change, uint64_t folder, const std::string& name);
  fuse_entry_out replayed_entry(uint64_t folder, const std::string& name, bool directory);
  size_t replayed_create(Request& request, Inode& folder, const std::string& name, bool directory);
  size_t replayed_setattr(Request& request);

  void watch(Inode& inode, uint64_t mount, const Inode& folder);
  void forget_node(uint64_t id, uint64_t count);
  fuse_entry_out lookup_name(Inode& parent, const std::string& name, Origin origin = Origin::asked);
  std::optional<fuse_entry_out> find_name(Inode& parent, const std::string& name, Origin origin = Origin::asked);
  const fuse_entry_out& noted(const Inode& parent, const std::string& name, const fuse_entry_out& entry);
  fuse_entry_out entry_for(os::Descriptor path, Policy policy, const Inode& folder, Origin origin);
  fuse_entry_out entry_of(const Inode& inode, const struct statx& from) const;
  fuse_attr attributes(const struct statx& from, uint64_t number) const;
  fuse_attr_out attributes_reply(const Inode& inode, int fd) const;
  fuse_attr_out attributes_reply(const Inode& inode, const struct statx& from) const;
  struct Look {
    fuse_attr_out reply;
    std::optional<statx_timestamp> birth;
  };
  Look look_at_node(const Request& request, uint32_t flags, uint64_t handle, unsigned further = 0);
  HandleRef open_for_lookups(uint64_t node);
  size_t read_directory(Request& request, bool plus);
  void change_attributes(const Request& request, const fuse_setattr_in& in, Inode& inode, int path);
  size_t remove_name(Request& request, int flags);
  size_t rename_with(Request& request, uint64_t new_parent, unsigned flags);
  os::Descriptor reopen(Inode& inode, int flags);
  int host_flags(uint32_t flags) const;
  size_t reply_created(Request& request, const fuse_entry_out& entry, const fuse_create_in& in, os::Descriptor fd);
  void require_room_to_create();
  fuse_open_out open_handle(os::Descriptor fd, uint32_t flags, InodeRef inode);

  const bool writeback_;
  const os::OwnDescriptors own_;
  InodeTable inodes_;
  HandleTable handles_;
  Replays replays_;
  std::atomic<bool> initialised_ = false;
  std::atomic<bool> seeks_ = false;  // the host's holes are the guest's
  std::optional<HostWatch> watch_;   // last: its thread ends before what it reports to
};

}  // namespace tskata::devices::fs
