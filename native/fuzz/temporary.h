// A folder that goes with its object: where fuzzers and device tests keep sockets and shared trees.
#pragma once
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace tskata::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    // Memory where there is some: fsync and syncfs of a disk would be most of the time spent.
    const bool shm = ::access("/dev/shm", W_OK) == 0;
    path_ = std::string(shm ? "/dev/shm" : "/tmp") + "/tskata-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp " + path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tskata::testing
