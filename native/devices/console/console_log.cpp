// The bounded file and the thread that fills it.
#include "devices/console/console_log.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "jail/jail.h"

namespace tskata::devices::console {

os::Descriptor open_log(const std::string& path) {
  return os::Descriptor(os::checked(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), ("open " + path).c_str()));
}

BoundedFile::BoundedFile(os::Descriptor file) : file_(std::move(file)) {
  struct stat status {};
  os::checked(::fstat(file_.get(), &status), "fstat console log");
  const int flags = os::checked(::fcntl(file_.get(), F_GETFL), "fcntl");
  if (!S_ISREG(status.st_mode) || (flags & O_ACCMODE) != O_RDWR) throw std::invalid_argument("a console log is a regular file open for both ways");
  // With O_APPEND Linux writes to the end whatever the offset.
  os::checked(::fcntl(file_.get(), F_SETFL, flags & ~O_APPEND), "fcntl");
  size_ = static_cast<uint64_t>(status.st_size);
}

void BoundedFile::append(std::string_view text) {
  while (!text.empty()) {
    if (size_ >= limit_bytes) move_tail();
    const std::string_view part = text.substr(0, limit_bytes - size_);
    const size_t written = write_at(size_, part);
    size_ += written;
    if (written < part.size()) return;  // a disk that is full or broken loses console output and nothing else
    text.remove_prefix(written);
  }
}

size_t BoundedFile::write_at(uint64_t offset, std::string_view text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::pwrite(file_.get(), text.data() + done, text.size() - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    done += static_cast<size_t>(written);
  }
  return done;
}

std::string BoundedFile::read_at(uint64_t offset, uint64_t length) const {
  std::string out(length, '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::pread(file_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  out.resize(done);
  return out;
}

void BoundedFile::move_tail() {
  std::string kept = read_at(size_ - kept_bytes, kept_bytes);
  const size_t line = kept.find('\n');  // the tail begins with a whole line, where there are lines
  if (line != std::string::npos && line < 4096) kept.erase(0, line + 1);
  left_out_ += size_ - tail_ - std::min<uint64_t>(kept.size(), size_ - tail_);
  const std::string mark = "\n[tskata: " + std::to_string(left_out_) + " bytes of console output left out here]\n";
  tail_ = head_bytes + mark.size();
  size_ = head_bytes + write_at(head_bytes, mark + kept);
  (void)!::ftruncate(file_.get(), static_cast<off_t>(size_));
}

ConsoleLog::ConsoleLog(os::Descriptor file) : file_(std::move(file)) { buffer_.reserve(buffer_bytes); }

ConsoleLog::~ConsoleLog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ConsoleLog::start() {
  thread_ = std::thread([this] { run(); });
}

void ConsoleLog::put(uint8_t byte) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (buffer_.size() >= buffer_bytes) {
      ++dropped_;
      return;
    }
    first = buffer_.empty();
    buffer_.push_back(static_cast<char>(byte));
  }
  if (first) wake_.notify_one();
}

void ConsoleLog::run() {
  jail::enter_thread(jail::Role::device);
  std::string taken;
  taken.reserve(buffer_bytes);
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !buffer_.empty(); });
    if (buffer_.empty()) return;
    taken.clear();
    taken.swap(buffer_);
    const uint64_t dropped = std::exchange(dropped_, 0);
    lock.unlock();
    file_.append(taken);
    // The bytes were dropped while the buffer was full, that is after those just written.
    if (dropped > 0) file_.append("\n[tskata: " + std::to_string(dropped) + " bytes of console output lost here: the disk was slower]\n");
    lock.lock();
  }
}

}  // namespace tskata::devices::console
