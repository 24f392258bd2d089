// Paths of a container, resolved inside its root filesystem: no symlink of an image leads out of it.
#pragma once
#include <sys/types.h>

#include <string>

#include "linux/descriptor.h"

namespace tskata::launcher {

// The root filesystem being prepared.
class Root {
 public:
  explicit Root(const std::string& path);

  // O_PATH descriptor of what is at `path`, its last symlink followed; -1 with errno when it is not there.
  os::Descriptor find(const std::string& path) const;
  // As find, after making folders as needed; `path` itself as folder or empty file.
  os::Descriptor make_folder(const std::string& path) const;
  os::Descriptor make_file(const std::string& path) const;
  // The folder that `path` is in, made as needed, and its last name.
  os::Descriptor make_parent(const std::string& path, std::string& name) const;

  int fd() const { return root_.get(); }

 private:
  os::Descriptor root_;
};

}  // namespace tskata::launcher
