// The host of the fs fuzzer's guest: it changes a volume from a process of its own, since what the server's process does is the guest's doing.
//
// What it is told is done in the volume's folder as it was when the tree was made, and nowhere else: the guest may have put a symlink in its place.
#pragma once
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "linux/descriptor.h"

namespace tskata::testing {

class Host {
 public:
  enum class Deed : uint8_t { make_folder, make_file, rename, move_out, move_in, remove, write, change_mode, last = change_mode };
  static constexpr std::array<const char*, 5> names{"made", "moved", "file", "dir", "new"};

  // Before there are threads. It ends with this process.
  Host() {
    std::array<int, 2> ends{};
    os::checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    if (os::checked(::fork(), "fork") == 0) {
      ::close(ends[0]);
      serve(ends[1]);
      ::_exit(0);
    }
    ::close(ends[1]);
    end_.reset(ends[0]);
  }

  // The tree whose volume the deeds are done in from now on.
  void enter(const std::string& root) { (void)ask(root); }
  // Whether it could be done. Names by their numbers, in the volume or, where it is `deep`, in its folder "dir".
  bool act(Deed deed, bool deep, uint8_t name, uint8_t new_name) {
    return ask({static_cast<char>(deed), deep ? '\1' : '\0', static_cast<char>(name % names.size()), static_cast<char>(new_name % names.size())});
  }

 private:
  bool ask(const std::string& what) const {
    char done = 0;
    // libFuzzer's timer interrupts.
    ssize_t moved;
    do moved = ::send(end_.get(), what.data(), what.size(), MSG_NOSIGNAL);
    while (moved < 0 && errno == EINTR);
    do moved = ::recv(end_.get(), &done, 1, 0);
    while (moved < 0 && errno == EINTR);
    if (moved != 1) throw std::runtime_error("the fuzzer's host has gone");
    return done != 0;
  }

  static void serve(int end) {
    os::Descriptor volume, unwatched;
    std::array<char, 4096> told;
    for (ssize_t got; (got = ::recv(end, told.data(), told.size(), 0)) > 0;) {
      bool done = true;
      if (told[0] == '/') {
        const std::string root(told.data(), static_cast<size_t>(got));
        volume.reset(::open((root + "/c1/mounts/v").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        unwatched.reset(::open((root + "/c1/rootfs").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      } else {
        const os::Descriptor deep(told[1] != 0 ? ::openat(volume.get(), "dir", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1);
        const auto name = [&](size_t at) { return names[static_cast<size_t>(told[at])]; };
        done = act(static_cast<Deed>(told[0]), deep ? deep.get() : volume.get(), volume.get(), unwatched.get(), name(2), name(3));
      }
      const char answer = done ? 1 : 0;
      (void)!::send(end, &answer, 1, MSG_NOSIGNAL);
    }
  }

  static bool act(Deed deed, int folder, int volume, int unwatched, const char* name, const char* new_name) {
    switch (deed) {
      case Deed::make_folder: return ::mkdirat(folder, name, 0755) == 0;
      case Deed::make_file: return static_cast<bool>(os::Descriptor(::openat(folder, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644)));
      case Deed::rename: return ::renameat(folder, name, volume, new_name) == 0;
      case Deed::move_out: return ::renameat(folder, name, unwatched, new_name) == 0;
      case Deed::move_in: return ::renameat(unwatched, name, folder, new_name) == 0;
      case Deed::remove: return ::unlinkat(folder, name, 0) == 0 || ::unlinkat(folder, name, AT_REMOVEDIR) == 0;
      case Deed::write: return ::write(open_known(folder, name, O_WRONLY | O_APPEND).get(), "more", 4) == 4;
      case Deed::change_mode: return ::fchmod(open_known(folder, name, O_RDONLY).get(), 0700) == 0;
    }
    return false;
  }

  // No FIFO, and nothing that a symlink of the guest's leads to.
  static os::Descriptor open_known(int folder, const char* name, int flags) {
    struct stat facts {};
    if (::fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW) != 0 || (!S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode))) return {};
    return os::Descriptor(::openat(folder, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  }

  os::Descriptor end_;
};

}  // namespace tskata::testing
