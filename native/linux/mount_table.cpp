// proc_pid_mountinfo(5).
#include "linux/mount_table.h"

#include <fcntl.h>

#include <array>
#include <sstream>

#include "linux/descriptor.h"

namespace tskata::os {

namespace {

std::string mount_table(int proc) {
  const Descriptor file(checked(::openat(proc, "mountinfo", O_RDONLY | O_CLOEXEC), "open mountinfo"));
  std::string text;
  std::array<char, 4096> part;
  while (const int got = checked(static_cast<int>(::read(file.get(), part.data(), part.size())), "read mountinfo")) {
    text.append(part.data(), static_cast<size_t>(got));
  }
  return text;
}

// Space, tab, newline and backslash are octal.
std::string unescaped(const std::string& field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      out.push_back(static_cast<char>(std::stoi(field.substr(i + 1, 3), nullptr, 8)));
      i += 3;
    } else {
      out.push_back(field[i]);
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> mount_points(int proc, const std::string& path) {
  std::vector<std::string> out;
  std::istringstream table(mount_table(proc));
  for (std::string line; std::getline(table, line);) {
    size_t at = 0;
    for (int field = 0; field < 4; ++field) at = line.find(' ', at) + 1;
    const std::string point = unescaped(line.substr(at, line.find(' ', at) - at));
    if (point == path || point.starts_with(path + "/")) out.push_back(point);
  }
  return out;
}

}  // namespace tskata::os
