// A guest of the fs device: FUSE requests by way of the front-end's queues, on a small tree with a folder beside it that no guest may reach.
#pragma once
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <sstream>

#include "devices/fs/fs.h"
#include "fuzz/device_test.h"
#include "keeper/keeper.h"

namespace tskata::testing {

namespace files = std::filesystem;

constexpr size_t priority_queue = 0;
constexpr size_t request_queue = 1;
constexpr size_t reply_bytes = 256 * 1024;
constexpr uint64_t root = FUSE_ROOT_ID;

template <typename... Parts>
std::string bytes_of(const Parts&... parts) {
  std::string out;
  const auto add = [&out](const auto& part) {
    if constexpr (std::is_convertible_v<decltype(part), std::string>) {
      out += part;
    } else {
      out.append(reinterpret_cast<const char*>(&part), sizeof part);
    }
  };
  (add(parts), ...);
  return out;
}

inline std::string text(const std::string& value) { return value + '\0'; }

struct Reply {
  int error = 0;  // an errno
  std::string body;

  template <typename T>
  T as(size_t offset = 0) const {
    expect(error == 0, "the request succeeds, errno " + std::to_string(error));
    expect(body.size() >= offset + sizeof(T), "size of the reply");
    T out;
    std::memcpy(&out, body.data() + offset, sizeof out);
    return out;
  }
};

struct Listed {
  fuse_entry_out entry;
  fuse_dirent dirent;
};

class Guest {
 public:
  explicit Guest(bool initialise = true, os::Descriptor keeper = {}, size_t budget = devices::fs::InodeTable::default_budget, bool writeback = false)
      : device_(std::make_shared<devices::fs::FsDevice>(devices::fs::FsOptions{tree(), "shared", 4, std::move(keeper), budget, {}, writeback})),
        front_(device_),
        request_(front_.allocate(reply_bytes)),
        reply_(front_.allocate(reply_bytes)) {
    if (!initialise) return;
    const auto out = init().as<fuse_init_out>();
    expect(out.major == 7 && out.minor == 36 && out.max_write == 1 << 20, "the session's terms");
    expect((out.flags & FUSE_DO_READDIRPLUS) != 0 && (out.flags & FUSE_POSIX_LOCKS) == 0, "the session's features");
    expect(((out.flags & FUSE_WRITEBACK_CACHE) != 0) == writeback, "the guest writes back where it was told to alone");
  }

  Reply init() { return call(FUSE_INIT, 0, bytes_of(std::array<uint32_t, 16>{7, 36, 131072, 0xffffffff, 0})); }

  // Header and body in descriptors of their own; `room` for the reply.
  Reply call(uint32_t opcode, uint64_t node, const std::string& body, size_t room = reply_bytes) {
    fuse_in_header header{};
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    header.uid = header.gid = caller_;
    header.pid = process_;
    header.len = static_cast<uint32_t>(sizeof header + body.size());
    put(request_, bytes_of(header));
    put(request_ + 64, body);
    std::vector<RingDescriptor> pieces{{request_, sizeof header, 0, 0}};
    if (!body.empty()) pieces.push_back({request_ + 64, static_cast<uint32_t>(body.size()), 0, 0});
    if (room > 0) pieces.push_back({reply_, static_cast<uint32_t>(room), flag_write, 0});
    front_.queue(request_queue).add(pieces);
    front_.kick(request_queue);
    return reply(room);
  }

  // Whose requests the next ones are.
  void become(uint32_t uid) { caller_ = uid; }
  void speak_as(uint32_t process) { process_ = process; }

  // Waits for some of the host's.
  std::vector<devices::fs::Change> changes() {
    std::promise<std::vector<devices::fs::Change>> heard;
    device_->next_changes(100, [&heard](std::vector<devices::fs::Change> some) { heard.set_value(std::move(some)); });
    return heard.get_future().get();
  }

  Reply lookup(uint64_t parent, const std::string& name) { return call(FUSE_LOOKUP, parent, text(name)); }
  // Whether the guest is told that there is no such name: by the error, or by an entry without a node, which it may keep.
  bool absent(uint64_t parent, const std::string& name) {
    const Reply reply = lookup(parent, name);
    return reply.error == ENOENT || (reply.error == 0 && reply.as<fuse_entry_out>().nodeid == 0);
  }
  // The node of a path below the root.
  uint64_t node(const std::string& path) {
    uint64_t at = root;
    for (const files::path& part : files::path(path)) at = lookup(at, part).as<fuse_entry_out>().nodeid;
    return at;
  }
  uint64_t open(uint64_t node, uint32_t flags = O_RDONLY) { return call(FUSE_OPEN, node, bytes_of(fuse_open_in{flags, 0})).as<fuse_open_out>().fh; }
  Reply read(uint64_t node, uint64_t handle, uint64_t offset, uint32_t size) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = size;
    return call(FUSE_READ, node, bytes_of(in));
  }
  Reply write(uint64_t node, uint64_t handle, uint64_t offset, const std::string& data, uint32_t flags = 0, uint32_t write_flags = 0) {
    fuse_write_in in{};
    in.flags = flags;
    in.write_flags = write_flags;
    in.fh = handle;
    in.offset = offset;
    in.size = static_cast<uint32_t>(data.size());
    return call(FUSE_WRITE, node, bytes_of(in, data));
  }
  uint64_t open_folder(uint64_t node, uint32_t flags = 0) {
    return call(FUSE_OPENDIR, node, bytes_of(fuse_open_in{O_DIRECTORY | flags, 0})).as<fuse_open_out>().fh;
  }
  std::map<std::string, Listed> list(uint64_t node, uint32_t size) { return list(node, size, open_folder(node)); }
  std::map<std::string, Listed> list(uint64_t node, uint32_t size, uint64_t handle) {
    std::map<std::string, Listed> out;
    fuse_read_in in{};
    in.fh = handle;
    in.size = size;
    for (;;) {
      const Reply part = call(FUSE_READDIRPLUS, node, bytes_of(in));
      expect(part.error == 0 && part.body.size() <= size, "a part of the folder");
      if (part.body.empty()) return out;
      for (size_t at = 0; at < part.body.size();) {
        const auto record = part.as<fuse_direntplus>(at);
        const std::string name = part.body.substr(at + FUSE_NAME_OFFSET_DIRENTPLUS, record.dirent.namelen);
        expect(out.emplace(name, Listed{record.entry_out, record.dirent}).second, name + " is told once");
        in.offset = record.dirent.off;
        at += FUSE_DIRENTPLUS_SIZE(&record);
      }
    }
  }

  Reply reply(size_t room) {
    const Used used = front_.wait_used(request_queue);
    fuse_out_header header{};
    expect(used.length <= room, "used length");
    if (used.length < sizeof header) return {};
    const auto bytes = front_.at(reply_, used.length);
    std::memcpy(&header, bytes.data(), sizeof header);
    expect(header.len == used.length && header.unique == unique_, "header of the reply");
    return {-header.error, std::string(reinterpret_cast<const char*>(bytes.data()) + sizeof header, used.length - sizeof header)};
  }

  void put(uint64_t at, const std::string& bytes) {
    if (!bytes.empty()) std::memcpy(front_.at(at, bytes.size()).data(), bytes.data(), bytes.size());
  }
  FrontEnd& front() { return front_; }
  std::string host(const std::string& path) const { return folder_ / ("shared/" + path); }
  std::string outside(const std::string& path) const { return folder_ / ("outside/" + path); }
  std::string content(const std::string& path) const {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }

 private:
  std::string tree() const {
    files::create_directories(host("c1/rootfs/dir"));
    files::create_directories(host("c1/mounts/v"));
    files::create_directories(outside(""));
    std::ofstream(host("c1/rootfs/file")) << "content";
    std::ofstream(outside("secret")) << "secret";
    files::create_symlink(outside(""), host("c1/rootfs/link"));
    files::create_symlink(outside("secret"), host("c1/rootfs/secret"));
    os::checked(::mkfifo(host("c1/rootfs/fifo").c_str(), 0666), "mkfifo");
    return folder_ / "shared";
  }

  TemporaryFolder folder_;
  std::shared_ptr<devices::fs::FsDevice> device_;
  FrontEnd front_;
  uint64_t request_;
  uint64_t reply_;
  uint64_t unique_ = 0;
  uint32_t caller_ = 0;
  uint32_t process_ = 7;
};

// Before there are threads.
inline os::Descriptor start_keeper() {
  std::array<int, 2> ends{};
  os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  if (os::checked(::fork(), "fork") == 0) {
    ::close(ends[0]);
    keeper::keep_handles(std::span(&ends[1], 1));
    ::_exit(0);
  }
  ::close(ends[1]);
  return os::Descriptor(ends[0]);
}

inline size_t open_descriptors() {
  return static_cast<size_t>(std::distance(files::directory_iterator("/proc/self/fd"), files::directory_iterator{}));
}

// From now on mounts are for this process alone.
inline void need_own_mounts() {
  need_root();
  os::checked(::unshare(CLONE_NEWNS), "unshare");
  os::checked(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount");
}

// A mount of a test's, gone before the folder it is in is removed.
class Mount {
 public:
  struct Type {
    const char* name;
  };
  explicit Mount(std::string place, Type type = {"tmpfs"}) : place_(std::move(place)) {
    files::create_directories(place_);
    os::checked(::mount("none", place_.c_str(), type.name, 0, nullptr), "mount");
  }
  Mount(const std::string& from, std::string to, unsigned long flags = 0) : place_(std::move(to)) {
    files::create_directories(place_);
    os::checked(::mount(from.c_str(), place_.c_str(), nullptr, MS_BIND, nullptr), "mount");
    if (flags != 0) os::checked(::mount(nullptr, place_.c_str(), nullptr, MS_BIND | MS_REMOUNT | flags, nullptr), "mount");
  }
  ~Mount() { (void)::umount2(place_.c_str(), MNT_DETACH); }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

 private:
  std::string place_;
};

}  // namespace tskata::testing
