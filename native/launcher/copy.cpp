// A plain recursive copy by descriptors.
#include "launcher/copy.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <memory>
#include <string>
#include <string_view>

#include "launcher/step.h"
#include "linux/descriptor.h"

namespace tskata::launcher {

namespace {

constexpr const char* step = "copy to the tmpfs (tmpcopyup)";

void keep_owner_and_mode(int folder, const char* name, const struct stat& facts) {
  attempt(::fchownat(folder, name, facts.st_uid, facts.st_gid, AT_SYMLINK_NOFOLLOW), step);
  if (!S_ISLNK(facts.st_mode)) attempt(::fchmodat(folder, name, facts.st_mode & 07777, 0), step);
  const timespec times[2] = {facts.st_atim, facts.st_mtim};
  attempt(::utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW), step);
}

void copy_file(int from, int to, const char* name) {
  const os::Descriptor in(attempt(::openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), step));
  const os::Descriptor out(attempt(::openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), step));
  while (attempt(::sendfile(out.get(), in.get(), nullptr, 1 << 20), step) > 0) {
  }
}

void copy_link(int from, int to, const char* name) {
  char target[PATH_MAX];
  const ssize_t length = attempt(::readlinkat(from, name, target, sizeof target - 1), step);
  target[length] = '\0';
  attempt(::symlinkat(target, to, name), step);
}

void copy_entry(int from, int to, const char* name) {
  struct stat facts {};
  attempt(::fstatat(from, name, &facts, AT_SYMLINK_NOFOLLOW), step);
  if (S_ISDIR(facts.st_mode)) {
    attempt(::mkdirat(to, name, 0700), step);
    const os::Descriptor inner_from(attempt(::openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), step));
    const os::Descriptor inner_to(attempt(::openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), step));
    copy_folder(inner_from.get(), inner_to.get());
  } else if (S_ISREG(facts.st_mode)) {
    copy_file(from, to, name);
  } else if (S_ISLNK(facts.st_mode)) {
    copy_link(from, to, name);
  } else {
    attempt(::mknodat(to, name, facts.st_mode, facts.st_rdev), step);
  }
  keep_owner_and_mode(to, name, facts);
}

}  // namespace

void copy_folder(int from, int to) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(::dup(from)), ::closedir);
  if (!entries) throw StepError(step, errno);
  while (const dirent* const entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") copy_entry(from, to, entry->d_name);
  }
  struct stat facts {};
  attempt(::fstat(from, &facts), step);
  attempt(::fchmod(to, facts.st_mode & 07777), step);
  attempt(::fchown(to, facts.st_uid, facts.st_gid), step);
}

}  // namespace tskata::launcher
