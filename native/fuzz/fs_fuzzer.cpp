// Fuzzes FUSE requests: the input is a script of requests on a small shared tree; beside the tree stands a folder that must stay as it is.
//
// Requests have real opcodes and bodies of about the right form most of the time, and ids the server has given out before, so that
// sequences reach deep; one in some is raw bytes. Meanwhile the host changes the volume, and the guest's agent, or whoever says that it is process 1,
// replays what it is told of. Runs as root where it can, as the server does.
#include <fuzzer/FuzzedDataProvider.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>

#include "devices/fs/protocol.h"
#include "devices/fs/server.h"
#include "fuzz/fs_fuzzer_host.h"
#include "fuzz/temporary.h"

namespace {

using namespace tskata;
using devices::fs::Change;
using devices::fs::ChangeKind;
using devices::fs::Server;
using testing::Host;

constexpr uint64_t root = FUSE_ROOT_ID;
constexpr uint32_t agent = 1;
constexpr uint32_t other_process = 7;
// Numbers of ghosts (devices/fs/replays.h): the first file and the second, a folder.
constexpr uint64_t ghost_file = uint64_t{1} << 63 | 1;
constexpr uint64_t ghost_folder = uint64_t{3} << 62 | 2;
constexpr auto patience = std::chrono::milliseconds(10);  // for what may be nobody's business
constexpr int max_steps = 100;
constexpr rlim_t max_file = 4u << 20;  // a tree in memory must not take it all
constexpr auto statx = static_cast<fuse_opcode>(devices::fs::opcode_statx);
constexpr std::array opcodes{
    FUSE_LOOKUP,          FUSE_FORGET, FUSE_GETATTR,  FUSE_SETATTR,      FUSE_READLINK,  FUSE_SYMLINK, FUSE_MKNOD,       FUSE_MKDIR,
    FUSE_UNLINK,          FUSE_RMDIR,  FUSE_RENAME,   FUSE_LINK,         FUSE_OPEN,      FUSE_READ,    FUSE_WRITE,       FUSE_STATFS,
    FUSE_RELEASE,         FUSE_FSYNC,  FUSE_SETXATTR, FUSE_GETXATTR,     FUSE_LISTXATTR, FUSE_OPENDIR, FUSE_READDIR,     FUSE_RELEASEDIR,
    FUSE_FSYNCDIR,        FUSE_CREATE, FUSE_DESTROY,  FUSE_BATCH_FORGET, FUSE_RENAME2,   FUSE_LSEEK,   FUSE_READDIRPLUS, FUSE_FALLOCATE,
    FUSE_COPY_FILE_RANGE, FUSE_SYNCFS, FUSE_TMPFILE,  FUSE_REMOVEXATTR,  FUSE_INIT,      statx,
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("fs_fuzzer: %s\n", what);  // the run closes standard error for the devices' sake
  std::fflush(stdout);
  std::abort();
}

// The shared tree and, outside it, what a guest would love to reach.
class Tree {
 public:
  Tree() {
    namespace files = std::filesystem;
    files::create_directories(folder_ / "shared/c1/rootfs/dir");
    files::create_directories(folder_ / "shared/c1/mounts/v/dir");
    files::create_directories(folder_ / "outside/dir");
    write("shared/c1/rootfs/file", "inside");
    write("shared/c1/mounts/v/file", "inside");
    write("outside/secret", "secret");
    files::create_symlink("../../../outside", folder_ / "shared/c1/rootfs/up");
    files::create_symlink(folder_ / "outside/secret", folder_ / "shared/c1/rootfs/far");
    files::create_hard_link(folder_ / "shared/c1/rootfs/file", folder_ / "shared/c1/rootfs/hard");
    require(::mkfifo((folder_ / "shared/c1/rootfs/fifo").c_str(), 0644) == 0, "mkfifo");
    before_ = outside();
  }

  std::string root() const { return folder_ / "shared"; }
  void check() const { require(outside() == before_, "something outside the shared tree has changed"); }

 private:
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }

  // Modes, owners, links, sizes and times of everything around the tree.
  std::string outside() const {
    std::ostringstream out;
    for (const char* name : {"", "outside", "outside/dir", "outside/secret"}) {
      struct stat at {};
      require(::lstat((folder_ / name).c_str(), &at) == 0, "what stood outside the shared tree has gone");
      out << at.st_mode << ' ' << at.st_uid << ' ' << at.st_gid << ' ' << at.st_nlink << ' ' << at.st_size << ' ' << at.st_mtim.tv_sec << '.'
          << at.st_mtim.tv_nsec << ' ' << at.st_ctim.tv_sec << '.' << at.st_ctim.tv_nsec << '\n';
    }
    return out.str();
  }

  testing::TemporaryFolder folder_;
  std::string before_;
};

// Bytes of a request, and where they are cut into pieces.
class Body {
 public:
  template <typename T>
  void put(const T& value) {
    const auto* const bytes = reinterpret_cast<const char*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
  }
  void text(const std::string& value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    bytes_.push_back('\0');
  }
  void raw(const std::string& value) { bytes_.insert(bytes_.end(), value.begin(), value.end()); }
  std::vector<char>& bytes() { return bytes_; }

 private:
  std::vector<char> bytes_;
};

// What the server has told the agent of, from a thread of its own and at any time.
class Heard {
 public:
  void add(std::vector<Change> changes) {
    const std::lock_guard lock(mutex_);
    changes_ = std::move(changes);
    news_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return news_; });
    news_ = false;
  }
  std::vector<Change> changes() const {
    const std::lock_guard lock(mutex_);
    return changes_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Change> changes_;
  bool news_ = false;
};

class Guest {
 public:
  Guest(Host& host, const std::string& tree, bool writeback) : host_(host), writeback_(writeback), server_({.root = tree, .writeback = writeback}) {}

  // Afterwards the volume is watched, and a folder in it.
  void init() {
    Body body;
    body.put(header(FUSE_INIT, 0));
    body.put(std::array<uint32_t, 16>{7, 36, 131072, 0xffffffff, 0xffffffff});
    require(exchange(body, 4096, 0), "INIT is refused");
    uint64_t at = root;
    for (const char* name : {"c1", "mounts", "v", "dir"}) {
      require(ask(FUSE_LOOKUP, at, other_process, [name](Body& to) { to.text(name); }), "LOOKUP is refused");
      at = nodes_.back();
    }
  }

  void step(FuzzedDataProvider& input) {
    switch (input.ConsumeIntegralInRange(0, 11)) {
      case 0: return writeback_ ? request(input) : host_acts(input);
      case 1: return replay(input);
      default: return request(input);
    }
  }

 private:
  static fuse_in_header header(uint32_t opcode, uint64_t at, uint32_t process = other_process) {
    fuse_in_header out{};
    out.opcode = opcode;
    out.unique = 42;
    out.nodeid = at;
    out.pid = process;
    return out;
  }

  void request(FuzzedDataProvider& input) {
    const uint32_t opcode = opcodes[input.ConsumeIntegralInRange<size_t>(0, opcodes.size() - 1)];
    Body body;
    body.put(header(opcode, node(input), input.ConsumeBool() ? agent : other_process));
    if (input.ConsumeIntegralInRange(0, 9) == 0) body.raw(input.ConsumeRandomLengthString(300));
    else fill(body, opcode, input);
    if (input.ConsumeIntegralInRange(0, 15) == 0) body.bytes().resize(input.ConsumeIntegralInRange<size_t>(0, body.bytes().size()));
    exchange(body, input.PickValueInArray<size_t>({4096, 4096, 4096, 65536, 0, 8, 16, 20, 200}), input.ConsumeIntegral<uint16_t>());
  }

  // A well-formed one; true when it succeeded.
  template <typename Fill>
  bool ask(uint32_t opcode, uint64_t at, uint32_t process, const Fill& filled) {
    Body body;
    body.put(header(opcode, at, process));
    filled(body);
    return exchange(body, 4096, 0);
  }

  // Some deeds, of which the agent is told some.
  void host_acts(FuzzedDataProvider& input) {
    bool done = false;
    for (auto deeds = input.ConsumeIntegralInRange(1, 4); deeds > 0; --deeds) {
      const auto deed = input.ConsumeIntegralInRange<uint8_t>(0, static_cast<uint8_t>(Host::Deed::last));
      const bool deep = input.ConsumeBool();
      const auto name = input.ConsumeIntegral<uint8_t>();
      done |= host_.act(static_cast<Host::Deed>(deed), deep, name, input.ConsumeIntegral<uint8_t>());
    }
    server_.next_changes(input.ConsumeIntegralInRange<size_t>(1, 8), [heard = heard_](std::vector<Change> some) { heard->add(std::move(some)); });
    if (done) heard_->wait();
  }

  // What the agent does for a change, with a look at the folder and the name before it or not; see devices/fs/guest_replay.cpp.
  void replay(FuzzedDataProvider& input) {
    const std::vector<Change> changes = heard_->changes();
    if (changes.empty()) return request(input);
    const Change& change = changes[input.ConsumeIntegralInRange<size_t>(0, changes.size() - 1)];
    const uint64_t folder = change.folder == Change::outside ? root : change.folder;
    const std::string name = change.folder == Change::outside ? devices::fs::moved_name : change.name;
    const bool outward = change.new_folder == Change::outside;
    if (input.ConsumeIntegralInRange(0, 3) == 0) ask(FUSE_LOOKUP, root, agent, [&](Body& body) { body.text(node_name(folder)); });
    uint64_t found = change.name.empty() ? folder : node(input);
    if (input.ConsumeBool() && ask(FUSE_LOOKUP, folder, agent, [&](Body& body) { body.text(name); })) found = nodes_.back();
    switch (change.kind) {
      case ChangeKind::create:
        ask(change.directory ? FUSE_MKDIR : FUSE_MKNOD, folder, agent, [&](Body& body) {
          if (change.directory) body.put(fuse_mkdir_in{0700, 0});
          else body.put(fuse_mknod_in{S_IFREG | 0600, 0, 0, 0});
          body.text(name);
        });
        return;
      case ChangeKind::remove: ask(change.directory ? FUSE_RMDIR : FUSE_UNLINK, folder, agent, [&](Body& body) { body.text(name); }); return;
      case ChangeKind::rename:
        ask(FUSE_RENAME, folder, agent, [&](Body& body) {
          body.put(fuse_rename_in{outward ? root : change.new_folder});
          body.text(name);
          body.text(outward ? devices::fs::moved_name : change.new_name);
        });
        return;
      case ChangeKind::modify:
      case ChangeKind::attributes:
        ask(FUSE_SETATTR, found, agent, [&](Body& body) {
          fuse_setattr_in in{};
          in.valid = FATTR_MTIME | (change.kind == ChangeKind::attributes ? FATTR_ATIME | FATTR_ATIME_NOW : 0);
          in.mtime = devices::fs::replayed_time;
          body.put(in);
        });
        return;
      case ChangeKind::close_write: ask(FUSE_OPEN, found, agent, [&](Body& body) { body.put(fuse_open_in{O_WRONLY, 0}); }); return;
    }
  }

  uint64_t node(FuzzedDataProvider& input) {
    switch (input.ConsumeIntegralInRange(0, 31)) {
      case 0: return input.ConsumeIntegral<uint64_t>();
      case 1: return input.ConsumeBool() ? ghost_file : ghost_folder;
      default: break;
    }
    return nodes_[input.ConsumeIntegralInRange<size_t>(0, nodes_.size() - 1)];
  }

  uint64_t handle(FuzzedDataProvider& input) {
    if (input.ConsumeIntegralInRange(0, 31) == 0) return devices::fs::replayed_handle;
    if (handles_.empty()) return input.ConsumeIntegral<uint8_t>();
    return handles_[input.ConsumeIntegralInRange<size_t>(0, handles_.size() - 1)];
  }

  static std::string node_name(uint64_t node) { return std::string(devices::fs::node_name) + std::to_string(node); }

  std::string name(FuzzedDataProvider& input) {
    static const std::array<std::string, 23> known{"c1",
                                                   "rootfs",
                                                   "mounts",
                                                   "v",
                                                   "dir",
                                                   "file",
                                                   "up",
                                                   "far",
                                                   "fifo",
                                                   "hard",
                                                   "new",
                                                   "..",
                                                   ".",
                                                   "",
                                                   "../outside",
                                                   "up/secret",
                                                   "/etc/passwd",
                                                   "user.a",
                                                   "security.capability",
                                                   "x",
                                                   "made",
                                                   "moved",
                                                   devices::fs::moved_name};
    const auto index = input.ConsumeIntegralInRange<size_t>(0, known.size() + 1);
    if (index < known.size()) return known[index];
    return index == known.size() ? node_name(node(input)) : input.ConsumeRandomLengthString(300);
  }

  static uint64_t offset(FuzzedDataProvider& input) { return input.PickValueInArray<uint64_t>({0, 0, 1, 4096, 1u << 20, INT64_MAX, UINT64_MAX}); }
  static uint32_t length(FuzzedDataProvider& input) { return input.PickValueInArray<uint32_t>({0, 1, 100, 4096, 65536, UINT32_MAX}); }
  static uint32_t mode(FuzzedDataProvider& input) {
    const uint32_t type = input.PickValueInArray<uint32_t>({S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFLNK, 0});  // no device nodes here
    return type | input.ConsumeIntegralInRange<uint32_t>(0, 07777);
  }
  static uint32_t open_flags(FuzzedDataProvider& input) { return input.ConsumeIntegral<uint32_t>(); }

  void fill(Body& body, uint32_t opcode, FuzzedDataProvider& input) {
    switch (opcode) {
      case FUSE_INIT:
        return body.put(std::array<uint32_t, 16>{input.ConsumeIntegralInRange<uint32_t>(6, 8), 36, 0, open_flags(input), open_flags(input)});
      case FUSE_LOOKUP:
      case FUSE_UNLINK:
      case FUSE_RMDIR:
      case FUSE_REMOVEXATTR: return body.text(name(input));
      case FUSE_SYMLINK: body.text(name(input)); return body.text(input.ConsumeBool() ? "../../../outside" : name(input));
      case FUSE_FORGET: return body.put(fuse_forget_in{input.ConsumeIntegralInRange<uint64_t>(0, 3)});
      case FUSE_BATCH_FORGET: {
        const auto count = input.ConsumeIntegralInRange<uint32_t>(0, 4);
        body.put(fuse_batch_forget_in{count, 0});
        for (uint32_t i = 0; i < count; ++i) body.put(fuse_forget_one{node(input), 1});
        return;
      }
      case FUSE_GETATTR: return body.put(fuse_getattr_in{input.ConsumeIntegralInRange<uint32_t>(0, 1), 0, handle(input)});
      case devices::fs::opcode_statx:
        return body.put(devices::fs::StatxIn{input.ConsumeIntegralInRange<uint32_t>(0, 1), 0, handle(input), 0, length(input)});
      case FUSE_SETATTR: {
        fuse_setattr_in in{};
        in.valid = input.ConsumeIntegral<uint32_t>();
        in.fh = handle(input);
        in.size = offset(input);
        in.atime = offset(input);
        in.mtime = input.ConsumeBool() ? devices::fs::replayed_time : offset(input);
        in.mtimensec = length(input);
        in.mode = mode(input);
        in.uid = length(input);
        in.gid = length(input);
        return body.put(in);
      }
      case FUSE_MKNOD: body.put(fuse_mknod_in{mode(input), 0, 022, 0}); return body.text(name(input));
      case FUSE_MKDIR: body.put(fuse_mkdir_in{mode(input), 022}); return body.text(name(input));
      case FUSE_RENAME:
        body.put(fuse_rename_in{node(input)});
        body.text(name(input));
        return body.text(name(input));
      case FUSE_RENAME2:
        body.put(fuse_rename2_in{node(input), input.ConsumeIntegralInRange<uint32_t>(0, 3), 0});
        body.text(name(input));
        return body.text(name(input));
      case FUSE_LINK: body.put(fuse_link_in{node(input)}); return body.text(name(input));
      case FUSE_OPEN:
      case FUSE_OPENDIR: return body.put(fuse_open_in{open_flags(input), input.ConsumeIntegralInRange<uint32_t>(0, 1)});
      case FUSE_CREATE:
      case FUSE_TMPFILE: body.put(fuse_create_in{open_flags(input), mode(input), 022, 0}); return body.text(name(input));
      case FUSE_READ:
      case FUSE_READDIR:
      case FUSE_READDIRPLUS: {
        fuse_read_in in{};
        const bool unopened = opcode == FUSE_READDIRPLUS && input.ConsumeIntegralInRange(0, 3) == 0;
        in.fh = unopened ? devices::fs::no_handle : handle(input);
        in.offset = offset(input);
        in.size = length(input);
        return body.put(in);
      }
      case FUSE_WRITE: {
        fuse_write_in in{};
        in.fh = handle(input);
        in.offset = offset(input);
        const std::string data(input.PickValueInArray<size_t>({0, 1, 100, 5000}), 'x');
        in.size = input.ConsumeIntegralInRange(0, 7) == 0 ? length(input) : static_cast<uint32_t>(data.size());
        in.write_flags = input.ConsumeIntegral<uint8_t>();
        body.put(in);
        return body.raw(data);
      }
      case FUSE_RELEASE:
      case FUSE_RELEASEDIR: return body.put(fuse_release_in{handle(input), 0, 0, 0});
      case FUSE_FSYNC:
      case FUSE_FSYNCDIR: return body.put(fuse_fsync_in{handle(input), input.ConsumeIntegralInRange<uint32_t>(0, 1), 0});
      case FUSE_SETXATTR: {
        const std::string value(input.ConsumeIntegralInRange<size_t>(0, 40), 'v');
        body.put(fuse_setxattr_in{static_cast<uint32_t>(value.size()), input.ConsumeIntegralInRange<uint32_t>(0, 3), 0, 0});
        body.text(name(input));
        return body.raw(value);
      }
      case FUSE_GETXATTR:
      case FUSE_LISTXATTR: body.put(fuse_getxattr_in{length(input), 0}); return body.text(name(input));
      case FUSE_LSEEK: return body.put(fuse_lseek_in{handle(input), offset(input), input.ConsumeIntegralInRange<uint32_t>(0, 5), 0});
      case FUSE_FALLOCATE: return body.put(fuse_fallocate_in{handle(input), offset(input), offset(input), input.ConsumeIntegral<uint8_t>(), 0});
      case FUSE_COPY_FILE_RANGE: {
        fuse_copy_file_range_in in{};
        in.fh_in = handle(input);
        in.off_in = offset(input);
        in.fh_out = handle(input);
        in.off_out = offset(input);
        in.len = length(input);
        return body.put(in);
      }
      default: return;
    }
  }

  // Serves one request; true when it succeeded. `cut` says where request and reply are split in two.
  bool exchange(Body& body, size_t room, uint16_t cut) {
    std::vector<char>& in = body.bytes();
    std::vector<char> out(room);
    const std::vector<iovec> readable = pieces(in, cut);
    const std::vector<iovec> writable = pieces(out, cut / 7);
    const size_t filled = server_.serve(readable, writable);
    fuse_out_header reply{};
    if (filled == 0) return false;
    require(filled <= room, "more replied than there is room");
    std::memcpy(&reply, out.data(), std::min(room, sizeof reply));
    if (room < sizeof reply) return false;
    require(reply.len == filled && reply.unique == 42 && reply.error <= 0, "a reply no kernel would believe");
    if (reply.error == 0) learn(in, out, filled);
    return reply.error == 0;
  }

  static std::vector<iovec> pieces(std::vector<char>& bytes, size_t cut) {
    if (bytes.empty()) return {};
    const size_t first = cut % bytes.size();
    if (first == 0) return {{bytes.data(), bytes.size()}};
    return {{bytes.data(), first}, {bytes.data() + first, bytes.size() - first}};
  }

  // Remembers ids for later requests.
  void learn(const std::vector<char>& in, const std::vector<char>& out, size_t filled) {
    fuse_in_header request;
    std::memcpy(&request, in.data(), sizeof request);
    const char* const at = out.data() + sizeof(fuse_out_header);
    const size_t size = filled - sizeof(fuse_out_header);
    uint64_t first = 0;
    if (size >= sizeof first) std::memcpy(&first, at, sizeof first);
    switch (request.opcode) {
      case FUSE_CREATE:
      case FUSE_TMPFILE: {
        fuse_open_out open;
        if (size < sizeof(fuse_entry_out) + sizeof open) return;
        std::memcpy(&open, at + sizeof(fuse_entry_out), sizeof open);
        handles_.push_back(open.fh);
        nodes_.push_back(first);
        return;
      }
      case FUSE_LOOKUP:
      case FUSE_MKDIR:
      case FUSE_MKNOD:
      case FUSE_SYMLINK:
      case FUSE_LINK: return nodes_.push_back(first);
      case FUSE_OPEN:
      case FUSE_OPENDIR: return handles_.push_back(first);
      default: return;
    }
  }

  Host& host_;
  const bool writeback_;
  const std::shared_ptr<Heard> heard_ = std::make_shared<Heard>();
  Server server_;
  std::vector<uint64_t> nodes_{root};
  std::vector<uint64_t> handles_;
};

}  // namespace

static std::unique_ptr<Host> host;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  host = std::make_unique<Host>();
  Server::prepare_thread();
  const rlimit limit{max_file, max_file};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::signal(SIGXFSZ, SIG_IGN);  // EFBIG instead, as in Node; here because libFuzzer sets its own handler after the initialisation
  FuzzedDataProvider input(data, size);
  const Tree tree;
  host->enter(tree.root());
  Guest guest(*host, tree.root(), size % 2 == 1);  // by what changes nothing of the script: the corpus keeps its meaning
  guest.init();
  for (int i = 0; i < max_steps && input.remaining_bytes() > 0; ++i) guest.step(input);
  tree.check();
  return 0;
}
