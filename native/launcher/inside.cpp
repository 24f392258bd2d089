// openat2 below the root filesystem.
#include "launcher/inside.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher/step.h"

namespace tskata::launcher {

namespace {

int open_inside(int root, const std::string& path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how));
}

std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

Root::Root(const std::string& path) : root_(attempt(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open the root filesystem " + path)) {}

os::Descriptor Root::find(const std::string& path) const { return os::Descriptor(open_inside(root_.get(), path, O_PATH)); }

os::Descriptor Root::make_parent(const std::string& path, std::string& name) const {
  const std::string clean = without_trailing_slashes(path);
  const size_t slash = clean.rfind('/');
  name = slash == std::string::npos ? clean : clean.substr(slash + 1);
  return make_folder(slash == std::string::npos ? "/" : clean.substr(0, slash));
}

os::Descriptor Root::make_folder(const std::string& path) const {
  const std::string clean = without_trailing_slashes(path);
  os::Descriptor found(open_inside(root_.get(), clean, O_PATH | O_DIRECTORY));
  if (found || errno != ENOENT || clean.empty() || clean == "/") {
    attempt(found ? 0 : -1, "open " + path);
    return found;
  }
  std::string name;
  const os::Descriptor parent = make_parent(clean, name);
  if (::mkdirat(parent.get(), name.c_str(), 0755) != 0 && errno != EEXIST) throw StepError("mkdir " + path, errno);
  os::Descriptor made(open_inside(root_.get(), clean, O_PATH | O_DIRECTORY));
  attempt(made ? 0 : -1, "open " + path);
  return made;
}

os::Descriptor Root::make_file(const std::string& path) const {
  os::Descriptor found(open_inside(root_.get(), path, O_PATH));
  if (found) return found;
  if (errno != ENOENT) throw StepError("open " + path, errno);
  std::string name;
  const os::Descriptor parent = make_parent(path, name);
  const os::Descriptor made(::openat(parent.get(), name.c_str(), O_CREAT | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644));
  attempt(made ? 0 : -1, "create " + path);
  os::Descriptor out(open_inside(root_.get(), path, O_PATH));
  attempt(out ? 0 : -1, "open " + path);
  return out;
}

}  // namespace tskata::launcher
