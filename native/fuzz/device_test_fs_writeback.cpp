// Cases of an fs device whose guest writes back: what its kernel asks for then, which files it is told anew, and what a guest makes of it that is not
// Linux.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "devices/fs/protocol.h"
#include "fuzz/fs_guest.h"

namespace tskata::testing {

namespace {

class WritingGuest : public Guest {
 public:
  WritingGuest() : Guest(true, {}, devices::fs::InodeTable::default_budget, true) {}

  uint64_t file() { return node("c1/rootfs/file"); }
  std::string path() const { return host("c1/rootfs/file"); }
  std::string content() const { return Guest::content(path()); }
  void release(uint64_t file, uint64_t handle) { expect(call(FUSE_RELEASE, file, bytes_of(fuse_release_in{handle, 0, 0, 0})).error == 0, "RELEASE"); }
};

// What is written in part of a page is read first, by a file that its process has open for writing alone.
void write_only() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  for (const uint32_t flags : {O_WRONLY, O_WRONLY | O_APPEND}) {
    const uint64_t handle = guest.open(file, flags);
    expect(guest.read(file, handle, 0, 4096).body == "content", "READ");
    guest.release(file, handle);
  }
  const auto created = guest.call(FUSE_CREATE, guest.node("c1/rootfs"), bytes_of(fuse_create_in{O_WRONLY, 0200, 0, 0}, text("new")));
  const uint64_t node = created.as<fuse_entry_out>().nodeid;
  const uint64_t handle = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  expect(guest.write(node, handle, 0, "abc", 0, FUSE_WRITE_CACHE).error == 0 && guest.read(node, handle, 0, 10).body == "abc",
         "of one that was made");
  const uint64_t reader = guest.open(file, O_RDONLY);
  expect(guest.write(file, reader, 0, "x", 0, FUSE_WRITE_CACHE).error == EBADF, "one for reading is for reading");
}

void write_only_direct() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  os::checked(::truncate(guest.path().c_str(), 8192), "truncate");
  const Reply opened = guest.call(FUSE_OPEN, file, bytes_of(fuse_open_in{O_WRONLY | O_DIRECT, 0}));
  need(opened.error != EINVAL, "a filesystem with O_DIRECT");
  fuse_read_in in{};
  in.fh = opened.as<fuse_open_out>().fh;
  in.size = 4096;
  in.flags = O_WRONLY | O_DIRECT;
  // Guest memory is not aligned as a disk may ask for: that refusal is the host's own.
  const int error = guest.call(FUSE_READ, file, bytes_of(in)).error;
  expect(error == 0 || error == EINVAL, "READ as the open file is, errno " + std::to_string(error));
}

// The cache's own goes to its place, whatever the open file was opened with.
void own_place() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  const uint64_t handle = guest.open(file, O_WRONLY | O_APPEND);
  expect(guest.write(file, handle, 0, "C", O_WRONLY | O_APPEND, FUSE_WRITE_CACHE).error == 0 && guest.content() == "Content", "WRITE");
}

// The guest knows where the end is; what it has kept of the file may have moved that.
void own_end() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  const uint64_t handle = guest.open(file, O_WRONLY | O_APPEND);
  expect(guest.write(file, handle, 10, "end", O_WRONLY | O_APPEND).error == 0, "WRITE past what has come");
  expect(guest.content() == std::string("content\0\0\0end", 13), "at the place that it names");
}

void holes() {
  fuse_lseek_in in{};
  in.whence = SEEK_HOLE;
  WritingGuest writing;
  in.fh = writing.open(writing.file());
  expect(writing.call(FUSE_LSEEK, writing.file(), bytes_of(in)).error == ENOSYS, "not told: what was written into one may not have come yet");
  const auto hello = [&](uint32_t flags2) {
    std::array<uint32_t, 16> words{7, 38, 131072, FUSE_INIT_EXT | FUSE_WRITEBACK_CACHE, flags2};
    return writing.call(FUSE_INIT, 0, bytes_of(words)).as<fuse_init_out>().flags2;
  };
  expect(hello(0xffffffff) == (devices::fs::flag2_lseek_writes_back | devices::fs::flag2_lookup_plus | devices::fs::flag2_enfile_forgets),
         "of what Linux does not have, these are understood alone");
  in.fh = writing.open(writing.file());
  expect(writing.call(FUSE_LSEEK, writing.file(), bytes_of(in)).as<fuse_lseek_out>().offset == 7, "told, where the guest writes back before it asks");
  expect(hello(0) == 0, "a guest that does not say so");
  in.fh = writing.open(writing.file());
  expect(writing.call(FUSE_LSEEK, writing.file(), bytes_of(in)).error == ENOSYS, "is not told again");
  Guest other;
  const uint64_t file = other.node("c1/rootfs/file");
  in.fh = other.open(file);
  expect(other.call(FUSE_LSEEK, file, bytes_of(in)).as<fuse_lseek_out>().offset == 7, "told, where nothing is kept back");
}

// The agent's is answered without a look at the host: even of a node that there is not.
void whose_sync() {
  constexpr uint64_t nobody = 99'999;
  WritingGuest writing;
  Guest other;
  const std::string body = bytes_of(fuse_syncfs_in{});
  expect(writing.call(FUSE_SYNCFS, root, body).error == 0 && writing.call(FUSE_SYNCFS, nobody, body).error == ESTALE, "a process's reaches the host");
  writing.speak_as(1);
  other.speak_as(1);
  expect(writing.call(FUSE_SYNCFS, nobody, body).error == 0, "the agent's does not");
  expect(other.call(FUSE_SYNCFS, nobody, body).error == ESTALE, "but where nothing is kept back");
}

void by_host(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::app) << content; }

// The guest's kernel believes its own size of a file: what the host has changed is another to it.
void told_anew() {
  WritingGuest guest;
  const uint64_t rootfs = guest.node("c1/rootfs");
  const uint64_t file = guest.file();
  expect(guest.file() == file, "nobody has changed it");
  by_host(guest.path(), " of the host's");
  const auto again = guest.lookup(rootfs, "file").as<fuse_entry_out>();
  expect(again.nodeid != file && again.attr.size == 21, "the host has");
  expect(guest.file() == again.nodeid, "and that one stays");
  expect(guest.call(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).error == 0, "the old one is there for whom has it open");
  by_host(guest.path(), "!");
  expect(guest.list(rootfs, 4096).at("file").entry.nodeid != again.nodeid, "by READDIRPLUS as well");
  const uint64_t mine = guest.file();
  const uint64_t handle = guest.open(mine, O_WRONLY | O_TRUNC);
  guest.write(mine, handle, 0, "the guest's", 0, FUSE_WRITE_CACHE);
  guest.release(mine, handle);
  by_host(guest.path(), " and the host's");
  expect(guest.file() != mine, "between the guest's change and its next look");
  const uint64_t set = guest.file();
  fuse_setattr_in in{};
  in.valid = FATTR_MTIME;
  in.mtime = 1;
  guest.call(FUSE_SETATTR, set, bytes_of(in));
  by_host(guest.path(), "!");
  expect(guest.file() != set, "or after it has set a time");
  Guest other;
  const uint64_t known = other.node("c1/rootfs/file");
  by_host(other.host("c1/rootfs/file"), "!");
  expect(other.node("c1/rootfs/file") == known, "not where the guest asks for sizes");
}

// Its own changes, which it knows.
void same_node() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  const auto same = [&](const std::string& after) { expect(guest.file() == file, "one node after " + after); };
  const uint64_t handle = guest.open(file, O_RDWR);
  guest.write(file, handle, 3, "WRITE", 0, FUSE_WRITE_CACHE);
  same("WRITE");
  by_host(guest.path(), " and the host");
  same("the host's change while it is open for writing");
  guest.release(file, handle);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  in.size = 4;
  guest.call(FUSE_SETATTR, file, bytes_of(in));
  same("SETATTR of the size");
  in.valid = FATTR_MTIME;
  in.mtime = 1;
  guest.call(FUSE_SETATTR, file, bytes_of(in));
  same("SETATTR of a time");
  const uint64_t second = guest.open(file, O_RDWR | O_TRUNC);
  guest.release(file, second);
  same("O_TRUNC");
  const auto created = guest.call(FUSE_CREATE, guest.node("c1/rootfs"), bytes_of(fuse_create_in{O_RDWR | O_TRUNC, 0644, 0, 0}, text("file")));
  const uint64_t third = created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  fuse_fallocate_in room{};
  room.fh = third;
  room.length = 10'000;
  const int error = guest.call(FUSE_FALLOCATE, file, bytes_of(room)).error;
  expect(error == 0 || error == EOPNOTSUPP, "FALLOCATE");
  fuse_copy_file_range_in copy{};
  copy.fh_in = copy.fh_out = third;
  copy.len = 10;
  copy.off_out = 20'000;
  guest.call(FUSE_COPY_FILE_RANGE, file, bytes_of(copy));
  guest.release(file, third);
  same("CREATE, FALLOCATE and COPY_FILE_RANGE");
}

// One thread opens, writes and closes, others ask for the name: it is never another node.
void same_node_under_load() {
  TemporaryFolder folder;
  files::create_directories(folder / "c1/rootfs");
  std::ofstream(folder / "c1/rootfs/file") << "content";
  devices::fs::Server server({.root = folder.path(), .writeback = true});
  const auto ask = [&server](uint32_t opcode, uint64_t node, const std::string& body) {
    fuse_in_header header{};
    header.opcode = opcode;
    header.nodeid = node;
    std::string in = bytes_of(header) + body;
    std::array<char, 4096> out{};
    const iovec readable{in.data(), in.size()};
    const iovec writable{out.data(), out.size()};
    const size_t length = server.serve(std::span(&readable, 1), std::span(&writable, 1));
    return std::string(out.data() + sizeof(fuse_out_header), length - sizeof(fuse_out_header));
  };
  const auto first = [](const std::string& reply) {
    uint64_t out = 0;
    std::memcpy(&out, reply.data(), std::min(sizeof out, reply.size()));
    return out;
  };
  ask(FUSE_INIT, 0, bytes_of(std::array<uint32_t, 16>{7, 36, 131072, 0xffffffff, 0}));
  const uint64_t container = first(ask(FUSE_LOOKUP, root, text("c1")));
  const uint64_t rootfs = first(ask(FUSE_LOOKUP, container, text("rootfs")));
  const uint64_t file = first(ask(FUSE_LOOKUP, rootfs, text("file")));
  std::atomic<bool> ending = false;
  std::atomic<unsigned> others = 0;
  std::vector<std::jthread> lookers;
  for (int i = 0; i < 2; ++i) {
    lookers.emplace_back([&] {
      while (!ending) others += first(ask(FUSE_LOOKUP, rootfs, text("file"))) == file ? 0 : 1;
    });
  }
  for (uint64_t turn = 0; turn < 3000; ++turn) {
    const uint64_t handle = first(ask(FUSE_OPEN, file, bytes_of(fuse_open_in{O_WRONLY, 0})));
    fuse_write_in in{};
    in.fh = handle;
    in.offset = turn;
    in.size = 1;
    in.write_flags = FUSE_WRITE_CACHE;
    ask(FUSE_WRITE, file, bytes_of(in, std::string("x")));
    ask(FUSE_RELEASE, file, bytes_of(fuse_release_in{handle, 0, 0, 0}));
    fuse_setattr_in times{};
    times.valid = FATTR_MTIME;
    times.mtime = turn;
    ask(FUSE_SETATTR, file, bytes_of(times));
  }
  ending = true;
  lookers.clear();
  expect(others == 0, "one node, told otherwise " + std::to_string(others) + " times");
}

// A part of what there is: another file server has the rest.
void shares() {
  TemporaryFolder folder;
  files::create_directories(folder / "c1/rootfs");
  rlimit limit{};
  os::checked(::getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
  const rlimit small{512, limit.rlim_max};
  os::checked(::setrlimit(RLIMIT_NOFILE, &small), "setrlimit");
  const auto nodes = [&](double share) {
    devices::fs::InodeTable table({.root = os::Descriptor(::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), .share = share});
    size_t out = 0;
    try {
      for (; out < 512; ++out) {
        const std::string path = folder / ("c1/rootfs/" + std::to_string(out));
        std::ofstream{path};
        os::Descriptor opened(::open(path.c_str(), O_PATH | O_CLOEXEC));
        struct statx facts {};
        os::checked(::statx(opened.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &facts), "statx");
        (void)table.remember(std::move(opened), facts, devices::fs::Policy::exclusive, *table.get(root), devices::fs::Origin::made);
      }
    } catch (const std::system_error& error) {
      expect(error.code().value() == ENFILE, "ENFILE");
    }
    return out;
  };
  const size_t whole = nodes(1), half = nodes(0.5);
  os::checked(::setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
  expect(whole == 256 && half == 128, "half the descriptors, a quarter: " + std::to_string(whole) + ", " + std::to_string(half));
}

// No Linux: handles of other files, released ones, offsets that are none.
void hostile() {
  WritingGuest guest;
  const uint64_t file = guest.file();
  const uint64_t handle = guest.open(file, O_WRONLY);
  const uint64_t other = guest.node("c1/rootfs/dir");
  expect(guest.write(other, handle, 0, "X", 0, FUSE_WRITE_CACHE).error == 0 && guest.content() == "Xontent",
         "a handle is its own file's, whatever node is named");
  expect(guest.write(file, handle, UINT64_MAX, "x", 0, FUSE_WRITE_CACHE).error == EINVAL, "no offset");
  expect(guest.write(file, handle + 1, 0, "x", 0, FUSE_WRITE_CACHE).error == EBADF, "no handle");
  guest.release(file, handle);
  expect(guest.write(file, handle, 0, "x", 0, FUSE_WRITE_CACHE).error == EBADF, "a released one");
  for (const std::string name : {"fifo", "link", "secret"}) {
    expect(guest.call(FUSE_OPEN, guest.node("c1/rootfs/" + name), bytes_of(fuse_open_in{O_WRONLY, 0})).error != 0, name + " is not opened");
  }
  expect(guest.content() == "Xontent" && guest.Guest::content(guest.outside("secret")) == "secret", "nothing else was written");
}

}  // namespace

std::vector<Case> fs_writeback_cases() {
  return {
      {"fs: writeback: what is open for writing is read", write_only},
      {"fs: writeback: O_DIRECT, open for writing", write_only_direct},
      {"fs: writeback: the cache's own goes to its place", own_place},
      {"fs: writeback: the end is the guest's", own_end},
      {"fs: writeback: holes are told to who writes back before", holes},
      {"fs: writeback: SYNCFS of the agent and of others", whose_sync},
      {"fs: writeback: what the host has changed is told anew", told_anew},
      {"fs: writeback: what the guest has changed is one node", same_node},
      {"fs: writeback: one node under load", same_node_under_load},
      {"fs: writeback: shares of two servers", shares},
      {"fs: writeback: a guest that is no Linux", hostile},
  };
}

}  // namespace tskata::testing
