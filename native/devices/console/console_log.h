// What a guest prints, in a file that cannot grow beyond a limit, written by a thread of its own: neither a guest that floods its
// console nor a slow disk holds up a vCPU.
//
// The file is text from its first byte to its last, for a reader that knows nothing of this:
//
//   head      the first 256 KiB, never touched again: the boot
//   mark      one line that says how many bytes are left out, once there are any
//   tail      the newest 384 to 768 KiB
//
// The tail grows at the end of the file. When the file is full, the newer half of the tail moves to its beginning and the file is cut
// behind it, so every byte is written at most twice. A reader that follows the file sees it become shorter then.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "linux/descriptor.h"

namespace tskata::devices::console {

// Opens a log's file as BoundedFile wants it, or makes it.
os::Descriptor open_log(const std::string& path);

// The file's side, for one thread.
class BoundedFile {
 public:
  static constexpr uint64_t head_bytes = 256 * 1024;
  static constexpr uint64_t limit_bytes = 1024 * 1024;
  static constexpr uint64_t kept_bytes = (limit_bytes - head_bytes) / 2;

  // Goes on at the end of the file. Throws std::invalid_argument unless it is a regular file open for reading and writing.
  explicit BoundedFile(os::Descriptor file);

  void append(std::string_view text);

 private:
  size_t write_at(uint64_t offset, std::string_view text);
  void move_tail();
  std::string read_at(uint64_t offset, uint64_t length) const;

  os::Descriptor file_;
  uint64_t size_ = 0;
  uint64_t left_out_ = 0;
  uint64_t tail_ = head_bytes;  // where the tail begins, behind the mark
};

class ConsoleLog {
 public:
  // What the guest may be ahead of the disk.
  static constexpr size_t buffer_bytes = 64 * 1024;

  explicit ConsoleLog(os::Descriptor file);
  // Writes what is left.
  ~ConsoleLog();

  // Makes the thread that writes, before the guest runs and the jail closes; once. It waits for that, and who ends this log waits for it: so
  // not before everything else is made.
  void start();
  // Never waits for the disk: what has no room is dropped, and the file says how much.
  void put(uint8_t byte);

 private:
  void run();

  BoundedFile file_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string buffer_;
  uint64_t dropped_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tskata::devices::console
